// Attention at 131072 tokens on the CPU, pages beyond 2^31 elements included, and what its scratch memory is
// planned to be.
#include "tests/parity/long_context.h"

namespace fd {
namespace {

using namespace parity;

Tensor Ints(const std::vector<int32_t>& values) {
  Tensor t(DType::kInt32, Device{}, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), t.view().As<int32_t>());
  return t;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
// Tensors as large as that are only reserved; the pages of the sequence are touched. Sanitizers touch more.
constexpr bool kCanReserveFarPages = !kSanitized;

void Check(Cpu& cpu, const LongContext& data, const Tensor& expected, DType act, int64_t first_page) {
  using L = LongContext;
  const Shape shape{first_page + L::kPages, L::kKvHeads, ops::kPageTokens, L::kHeadDim};
  const Tensor k_pages(act, Device{}, shape), v_pages(act, Device{}, shape);
  const std::vector<int32_t> table = data.Table(first_page);
  const Tensor slots = Ints(L::Slots(table)), tables = Ints(table),
               table_offsets = Ints({0, static_cast<int32_t>(L::kPages)});
  // The op rotates keys in place, by nothing here.
  Tensor k(act, Device{}, data.k.view().shape), no_q(act, Device{}, {L::kTokens, L::kHeads, L::kHeadDim});
  std::memcpy(k.view().data, data.k.view().data, static_cast<size_t>(k.size_bytes()));
  std::memset(no_q.view().data, 0, static_cast<size_t>(no_q.size_bytes()));
  ops::RopeAndWriteKv(cpu.ctx, no_q, k_pages, v_pages, k, data.v, data.identity, slots,
                      ops::RopeStyle::kInterleaved);
  int64_t row = 0;
  for (int64_t queries : {L::kChunk, int64_t{1}}) {
    SCOPED_TRACE(testing::Message() << queries << " queries, first page " << first_page);
    const int64_t context = L::kTokens - L::kQueries + row + queries;
    const Tensor offsets = Ints({0, static_cast<int32_t>(queries)}),
                 contexts = Ints({static_cast<int32_t>(context)});
    ops::AttentionBatch batch;
    batch.query_offsets = offsets;
    batch.context_tokens = contexts;
    batch.table_offsets = table_offsets;
    batch.block_tables = tables;
    batch.max_query_tokens = queries;
    batch.max_context_tokens = context;
    const Tensor out(act, Device{}, {queries, L::kHeads, L::kHeadDim});
    ops::PagedAttention(cpu.ctx, out, data.q.view().Rows(row, queries), k_pages, v_pages, batch, L::kScale);
    ExpectClose(out, expected.view().Rows(row, queries), act == DType::kFloat32 ? 1e-5 : 1e-2,
                act == DType::kFloat32 ? 1e-4 : 1e-2);
    row += queries;
  }
}

TEST(LongContext, ChunkAndDecodeAt131072Tokens) {
  std::mt19937 rng(19);
  for (DType act : {DType::kFloat32, DType::kBFloat16}) {
    const LongContext data(rng, act);
    const Tensor expected = data.Expected();
    ForEachIsa([&] {
      SCOPED_TRACE(DTypeName(act));
      Cpu cpu(2);
      Check(cpu, data, expected, act, 0);
      if (act == DType::kBFloat16 && kCanReserveFarPages)
        Check(cpu, data, expected, act, LongContext::kFarPages);
      EXPECT_LE(cpu.workspace.peak_bytes(),
                ops::PagedAttentionScratchBytes(cpu.ctx, act, LongContext::kHeads, LongContext::kKvHeads,
                                                LongContext::kHeadDim, LongContext::kChunk, 1,
                                                LongContext::kTokens));
    });
  }
}

// The plan's figure is never too small and, where tiles are split, not far above what is taken.
TEST(LongContext, ScratchIsWhatThePlanSays) {
  const int64_t context = 20000, head_dim = 64;
  const int64_t pages = (context + ops::kPageTokens - 1) / ops::kPageTokens;
  double nearest = 0;
  // Under a sanitizer a quarter of them, which take minutes there.
  const auto some = [](std::vector<int64_t> all, std::vector<int64_t> few) { return kSanitized ? few : all; };
  for (int64_t threads : some({1, 2, 5, 16}, {2, 16})) {
    for (int64_t group : some({1, 2, 3, 8, 16, 40}, {1, 3, 40})) {
      for (int64_t kv_heads : {1, 4}) {
        const Tensor k_pages(DType::kBFloat16, Device{}, {pages, kv_heads, ops::kPageTokens, head_dim}),
            v_pages(DType::kBFloat16, Device{}, {pages, kv_heads, ops::kPageTokens, head_dim});
        std::memset(k_pages.view().data, 0, static_cast<size_t>(k_pages.size_bytes()));
        std::memset(v_pages.view().data, 0, static_cast<size_t>(v_pages.size_bytes()));
        std::vector<int32_t> table(static_cast<size_t>(pages));
        std::iota(table.begin(), table.end(), 0);
        int64_t peak = 0;
        for (const std::vector<int32_t>& queries :
             {std::vector<int32_t>{1}, {2}, {5}, {13}, {24}, {1, 1}, {1, 7, 1}, {3, 3, 3, 3, 3, 3}}) {
          Cpu cpu(static_cast<int>(threads));
          std::vector<int32_t> offsets = {0}, contexts, table_offsets = {0}, tables;
          ops::AttentionBatch batch;
          for (int32_t n : queries) {
            offsets.push_back(offsets.back() + n);
            contexts.push_back(static_cast<int32_t>(context));
            tables.insert(tables.end(), table.begin(), table.end());
            table_offsets.push_back(static_cast<int32_t>(tables.size()));
            batch.max_query_tokens = std::max<int64_t>(batch.max_query_tokens, n);
          }
          const Tensor a = Ints(offsets), b = Ints(contexts), c = Ints(table_offsets), d = Ints(tables);
          batch.query_offsets = a;
          batch.context_tokens = b;
          batch.table_offsets = c;
          batch.block_tables = d;
          batch.max_context_tokens = context;
          const int64_t tokens = offsets.back(), heads = group * kv_heads;
          const Tensor q(DType::kBFloat16, Device{}, {tokens, heads, head_dim}),
              out(DType::kBFloat16, Device{}, {tokens, heads, head_dim});
          std::memset(q.view().data, 0, static_cast<size_t>(q.size_bytes()));
          ops::PagedAttention(cpu.ctx, out, q, k_pages, v_pages, batch, 0.125f);
          const int64_t planned = ops::PagedAttentionScratchBytes(
              cpu.ctx, DType::kBFloat16, heads, kv_heads, head_dim, tokens, std::ssize(queries), context);
          EXPECT_LE(cpu.workspace.peak_bytes(), planned)
              << threads << " threads, " << heads << "/" << kv_heads << " heads, " << tokens << " tokens";
          peak = std::max(peak, cpu.workspace.peak_bytes());
        }
        const int64_t planned =
            ops::PagedAttentionScratchBytes(Cpu(static_cast<int>(threads)).ctx, DType::kBFloat16,
                                            group * kv_heads, kv_heads, head_dim, 384, 6, context);
        nearest = std::max(nearest, static_cast<double>(peak) / static_cast<double>(planned));
      }
    }
  }
  EXPECT_GT(nearest, 0.5);
}

}  // namespace
}  // namespace fd
