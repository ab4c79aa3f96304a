// The chosen experts' MLPs on CUDA: (token, choice) pairs grouped by expert, two grouped products, the
// weighted sum per token. Everything is asynchronous on `stream`, reads no index on the host and allocates
// nothing, so that it can be captured in a graph.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

// Device memory by which the kernels find the experts of one layer; made once at load.
// [gate_up tensor maps][down tensor maps], then addresses: [gate_up][down][gate_up scales][down scales], one
// of each per expert. The tensor maps (128 bytes each, for Hopper's copy engine) are zero where the device,
// the shapes or quantised weights have no use for them.
int64_t ExpertTableBytes(int64_t experts);

struct ExpertTableShape {
  int64_t experts, hidden, width;
  DType weight;    // unused when quantised
  bool quantized;  // panels and scales as in linear_quant.h
};
// Device memory of each expert. gate_up[e]: [2 * width, hidden] row-major, gate rows first; down[e]: [hidden,
// width]. The scales are null without quantisation.
struct ExpertAddresses {
  const void *gate_up, *down, *gate_up_scales, *down_scales;
};
// Fills ExpertTableBytes of host memory.
void FillExpertTable(void* host_table, const ExpertTableShape& shape, const ExpertAddresses* experts);

// Of one of the two products; bits 0: as stored.
struct ExpertQuant {
  int bits = 0;
  int64_t group_size = 0;
};

struct MoeArgs {
  int64_t tokens, top_k, experts, hidden, width;
  DType act, gate_up_weight, down_weight;  // weights: unused when quantised
  ExpertQuant gate_up_quant, down_quant;   // both or neither
  void* out;                               // [tokens, hidden] act
  int64_t out_stride;
  const void* in;  // [tokens, hidden] act
  int64_t in_stride;
  const int32_t* expert_ids;  // [tokens, top_k], each in [0, experts)
  int64_t ids_stride;
  const float* expert_weights;  // [tokens, top_k]
  int64_t weights_stride;
  const void* table;  // device copy of FillExpertTable's
  // Scratch; pairs = tokens * top_k.
  int32_t* offsets;  // [experts + 1]
  int32_t* slots;    // [pairs]: where choice j of token t went
  void* rows;        // [pairs, hidden] act: the experts' inputs, then their results
  void* gate_up;     // [pairs, 2 * width] act; unused (may be null) when MoeFused
  void* activated;   // [pairs, width] act
};
// Whether the first product applies SwiGLU itself.
bool MoeFused(const MoeArgs& args);
void MoeExperts(const MoeArgs& args, void* stream);

}  // namespace fd::cuda
