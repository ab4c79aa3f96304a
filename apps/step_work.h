// What a step has to read and to compute at least: the numerator of every share of the roofline.
#pragma once

#include <cstdint>

#include "model/weights/quantization.h"

namespace fd {

struct StepWork {
  double bytes = 0;
  double flop = 0;       // 2 per multiply-add, of bfloat16 operands
  double int8_flop = 0;  // the same of int8 operands: quantised weights
};

// `sequences` sequences with `context` tokens behind them take `new_tokens` tokens each, and each wants the
// logits of its last. Weights in bfloat16 or quantised with their scales, routers in float32; kv_token_bytes:
// keys and values of one token in all layers. Bytes: every weight that takes part once, the context's keys
// and values read, the new ones written. Operations: linear layers and attention. Text experts only.
StepWork WorkOfStep(const ModelConfig& config, double kv_token_bytes, int64_t sequences, int64_t new_tokens,
                    double context, const Quantization& quantization = {});

}  // namespace fd
