// Attention at 131072 tokens on the GPU, pages beyond 2^31 elements included.
#include "tests/parity/cuda_parity.h"
#include "tests/parity/long_context.h"

namespace fd {
namespace {

using namespace parity;
using L = LongContext;

Tensor Ints(CudaContext& gpu, const std::vector<int32_t>& values) {
  Tensor t(DType::kInt32, Device{}, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.view().As<int32_t>());
  return ToDevice(gpu, t);
}

void Check(CudaContext& gpu, const LongContext& data, const Tensor& expected, DType act, int64_t first_page) {
  const Shape shape{first_page + L::kPages, L::kKvHeads, ops::kPageTokens, L::kHeadDim};
  const Tensor k_pages(act, kGpu, shape), v_pages(act, kGpu, shape);
  const std::vector<int32_t> table = data.Table(first_page);
  const Tensor slots = Ints(gpu, L::Slots(table)), tables = Ints(gpu, table),
               table_offsets = Ints(gpu, {0, static_cast<int32_t>(L::kPages)});
  const Tensor k = ToDevice(gpu, data.k), v = ToDevice(gpu, data.v), q = ToDevice(gpu, data.q),
               no_q = PoisonedOnDevice(gpu, act, {L::kTokens, L::kHeads, L::kHeadDim});
  ops::RopeAndWriteKv(gpu.ctx, no_q, k_pages, v_pages, k, v, ToDevice(gpu, data.identity), slots,
                      ops::RopeStyle::kInterleaved);
  int64_t row = 0;
  for (int64_t queries : {L::kChunk, int64_t{1}}) {
    SCOPED_TRACE(testing::Message() << queries << " queries, first page " << first_page);
    const int64_t context = L::kTokens - L::kQueries + row + queries;
    const Tensor offsets = Ints(gpu, {0, static_cast<int32_t>(queries)}),
                 contexts = Ints(gpu, {static_cast<int32_t>(context)});
    ops::AttentionBatch batch;
    batch.query_offsets = offsets;
    batch.context_tokens = contexts;
    batch.table_offsets = table_offsets;
    batch.block_tables = tables;
    batch.max_query_tokens = queries;
    batch.max_context_tokens = context;
    const Tensor out = PoisonedOnDevice(gpu, act, {queries, L::kHeads, L::kHeadDim});
    ops::PagedAttention(gpu.ctx, out, q.view().Rows(row, queries), k_pages, v_pages, batch, L::kScale);
    ExpectClose(ToHost(gpu, out), expected.view().Rows(row, queries), act == DType::kFloat32 ? 1e-5 : 1e-2,
                act == DType::kFloat32 ? 1e-4 : 1e-2);
    row += queries;
  }
}

TEST(CudaLongContext, ChunkAndDecodeAt131072Tokens) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(19);
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    SCOPED_TRACE(DTypeName(act));
    const LongContext data(rng, act);
    const Tensor expected = data.Expected();
    Check(gpu, data, expected, act, 0);
    // Keys and values of 4 GiB each in bfloat16, 8 in float32.
    const int64_t bytes = 2 * (L::kFarPages + L::kPages) * ops::kPageTokens * L::kHeadDim * DTypeBytes(act);
    if (cuda::GetDeviceInfo(0).free_bytes > bytes + (int64_t{1} << 30))
      Check(gpu, data, expected, act, L::kFarPages);
  }
}

}  // namespace
}  // namespace fd
