// How config.json says that a checkpoint holds quantised weights in panels, as `fastdeploy quantize` writes
// them, and what their tensors are called. Of a linear layer's parts that are stacked into one weight
// (q, k, v; gate, up) the first one's name stands for all:
//   NAME.panels  U8    [panels, octets of k, 16 * bits]   compute/kernels/cpu/linear_quant.h
//   NAME.scales  BF16  [panels, groups, 16]
// Whatever is not quantised lies beside them as it was stored (format_version 1), or, when no layer is
// quantised, linear layers in panels of their stored type too (format_version 2):
//   NAME.panels  BF16  [panels, pairs of k, 32]            compute/kernels/cpu/linear.h
//   NAME.panels  F32   [panels, k, 16]
// The rows of a table that is also the head stay beside the head's panels.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/status.h"
#include "model/weights/quantization_config.h"

namespace fd {

inline std::string PanelsName(const std::string& name) { return name + ".panels"; }
inline std::string ScalesName(const std::string& name) { return name + ".scales"; }

// What is written and how it is told.
struct PackOptions {
  Quantization quantization;
  // Bytes of the new file done and in all; may be empty.
  std::function<void(int64_t done_bytes, int64_t total_bytes)> progress;
  // Asked again and again; true ends the work and leaves nothing. May be empty.
  std::function<bool()> stopped;
};

// Whether the folder for these kinds has all linear layers in panels (format_version 2).
inline bool PacksAll(const Quantization& quantization) { return !IsQuantized(quantization); }

// "wint4", "none --quantize-lm-head wint8", ...; of nothing quantised "none (weights as stored)".
std::string PackedName(const Quantization& quantization);

inline constexpr const char* kQuantizationConfig = "quantization_config";
// The value of that key.
JsonObject PackedConfig(const Quantization& quantization);

struct StoredQuantization {
  std::string method;                  // quant_method, "" when config.json says nothing
  std::optional<Quantization> packed;  // of the method that PackedConfig writes
  bool all_panels = false;             // format_version 2
};
// Errors: no readable config.json; of our method, a version or kind that this program does not know.
StatusOr<StoredQuantization> ReadStoredQuantization(const std::string& model_dir);

}  // namespace fd
