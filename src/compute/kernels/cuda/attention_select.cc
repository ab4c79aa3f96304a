// Which attention kernel takes what.
#include <algorithm>

#include "compute/kernels/cuda/attention.h"

namespace fd::cuda {
namespace {

// The tensor-core kernels load 16 bytes at a time and store 4.
bool FitsTensorCores(const AttentionArgs& a) {
  auto at16 = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (a.dtype != DType::kBFloat16 || (a.head_dim != 64 && a.head_dim != 80 && a.head_dim != 128))
    return false;
  return at16(a.q) && at16(a.k) && at16(a.v) && at16(a.out) && a.q_stride % 8 == 0 && a.out_stride % 8 == 0 &&
         a.k_stride % 8 == 0 && a.v_stride % 8 == 0;
}

bool TakesDecode(const AttentionArgs& a) {
  return !a.invariant && a.block_tables != nullptr && (a.head_dim == 64 || a.head_dim == 128) &&
         a.heads / a.kv_heads <= attention::kDecodeRows && FitsTensorCores(a);
}

bool TakesWgmma(const AttentionArgs& a) {
  const bool bytes = a.page_type == DType::kFloat8E4M3 || a.page_type == DType::kInt8;
  return FitsTensorCores(a) && (!bytes || a.head_dim % 64 == 0) && attention::HasWgmma();
}

}  // namespace

// The two run one after the other, so they share it.
int64_t AttentionScratchFloats(const AttentionArgs& a) {
  return std::max<int64_t>(TakesDecode(a) ? attention::DecodeScratchFloats(a) : 0,
                           TakesWgmma(a) ? attention::WgmmaScratchFloats(a) : 0);
}

void Attention(const AttentionArgs& a, void* stream) {
  if (!FitsTensorCores(a)) return attention::Simt(a, stream);
  const bool decode = TakesDecode(a);
  // Sequences of a few rows and long ones may come together; each kernel leaves the other's out.
  if (decode) attention::Decode(a, stream);
  if (!decode || a.max_query_tokens * (a.heads / a.kv_heads) > attention::kDecodeRows) {
    (TakesWgmma(a) ? attention::Wgmma : attention::Mma)(a, decode, stream);
  }
}

}  // namespace fd::cuda
