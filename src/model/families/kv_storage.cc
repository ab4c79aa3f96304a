#include "model/model.h"

namespace fd {

KvStorage MakeKvStorage(const ModelConfig& config, DType pages, const ops::Context& ctx, int64_t num_pages) {
  KvStorage kv;
  kv.num_pages = num_pages;
  const Shape shape = ops::PagesShape(pages, num_pages, config.num_kv_heads, config.head_dim);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    kv.k.push_back(ops::NewTensor(ctx, pages, shape));
    kv.v.push_back(ops::NewTensor(ctx, pages, shape));
  }
  return kv;
}

int64_t KvBytesPerPage(const ModelConfig& config, DType pages) {
  const Shape page = ops::PagesShape(pages, 1, config.num_kv_heads, config.head_dim);
  // Padded as an arena pads tensors, so that the plan covers them: only pages of bytes in an odd number of
  // heads, or with an odd number of pairs in a head, are not multiples already.
  return config.num_layers * 2 * Arena::PaddedBytes(page.NumElements() * DTypeBytes(pages));
}

}  // namespace fd
