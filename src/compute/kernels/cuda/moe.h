// The chosen experts' MLPs on CUDA: (token, choice) pairs grouped by expert, two grouped products, the
// weighted sum per token. Everything is asynchronous on `stream`, reads no index on the host and allocates
// nothing, so that it can be captured in a graph.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cuda {

// Device memory by which the kernels find the experts of one layer; made once at load.
// [gate_up tensor maps][down tensor maps][gate_up addresses][down addresses], one of each per expert. The
// tensor maps (128 bytes each, for Hopper's copy engine) are zero where the device or the shapes have no use
// for them.
int64_t ExpertTableBytes(int64_t experts);

struct ExpertTableShape {
  int64_t experts, hidden, width;
  DType weight;
};
// Fills ExpertTableBytes of host memory. gate_up[e]: device memory [2 * width, hidden] row-major, gate rows
// first; down[e]: [hidden, width].
void FillExpertTable(void* host_table, const ExpertTableShape& shape, const void* const* gate_up,
                     const void* const* down);

struct MoeArgs {
  int64_t tokens, top_k, experts, hidden, width;
  DType act, gate_up_weight, down_weight;
  void* out;  // [tokens, hidden] act
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
