#include "model/model.h"

namespace fd {

KvStorage MakeKvStorage(const ModelConfig& config, DType dtype, const ops::Context& ctx, int64_t num_pages) {
  KvStorage kv;
  kv.num_pages = num_pages;
  const Shape shape{num_pages, config.num_kv_heads, ops::kPageTokens, config.head_dim};
  for (int64_t l = 0; l < config.num_layers; ++l) {
    kv.k.push_back(ops::NewTensor(ctx, dtype, shape));
    kv.v.push_back(ops::NewTensor(ctx, dtype, shape));
  }
  return kv;
}

int64_t KvBytesPerPage(const ModelConfig& config, DType dtype) {
  return config.num_layers * 2 * config.num_kv_heads * ops::kPageTokens * config.head_dim * DTypeBytes(dtype);
}

}  // namespace fd
