// Paged and segment attention on the GPU against the reference: ragged batches, poisoned pages and outputs,
// and the invariances that the kernels promise, bit by bit.
#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "compute/kernels/reference/attention.h"
#include "compute/ops/attention.h"
#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

constexpr DType kActs[] = {DType::kFloat32, DType::kBFloat16};

// Activations and what their pages hold.
struct Kind {
  DType act;
  DType pages;
  std::string Name() const { return std::string(DTypeName(act)) + " on " + DTypeName(pages); }
};
constexpr Kind kKinds[] = {{DType::kFloat32, DType::kFloat32},    {DType::kBFloat16, DType::kBFloat16},
                           {DType::kFloat32, DType::kFloat8E4M3}, {DType::kBFloat16, DType::kFloat8E4M3},
                           {DType::kFloat32, DType::kInt8},       {DType::kBFloat16, DType::kInt8}};

struct Shapes {
  int64_t heads, kv_heads, head_dim;
};
// A sequence of a step: `queries` new tokens after `before` cached ones.
struct Part {
  int64_t before, queries;
};

Tensor Ints(const std::vector<int32_t>& values, Shape shape) {
  Tensor t(DType::kInt32, Device{}, shape);
  std::memcpy(t.view().data, values.data(), values.size() * 4);
  return t;
}

// bfloat16 probabilities and one rounding at the end, or float32 all along.
double Absolute(DType act) { return act == DType::kFloat32 ? 3e-6 : 1e-2; }
double Relative(DType act) { return act == DType::kFloat32 ? 1e-5 : 8e-3; }

// Keys, values and queries of whole sequences; the same ones whatever step they are fed in.
struct Data {
  // uneven: keys and values of neighbouring tokens differ in size by powers of two, and so do scales of
  // bytes.
  Data(uint32_t seed, const Kind& kind, const Shapes& s, const std::vector<int64_t>& contexts,
       float size = 1.0f, bool uneven = false) {
    const DType act = kind.act;
    for (size_t i = 0; i < contexts.size(); ++i) {
      std::mt19937 rng(seed + static_cast<uint32_t>(i));
      q.push_back(Random(rng, act, {contexts[i], s.heads, s.head_dim}, size));
      k.push_back(Random(rng, act, {contexts[i], s.kv_heads, s.head_dim}, size));
      v.push_back(Random(rng, act, {contexts[i], s.kv_heads, s.head_dim}));
      if (uneven) {
        Halve(k.back(), 5);
        Halve(v.back(), 3);
      }
      stored_k.push_back(Stored(k.back(), kind));
      stored_v.push_back(Stored(v.back(), kind));
    }
  }
  // Row t is halved t * step % 4 times.
  static void Halve(const TensorView& rows, int64_t step) {
    const int64_t n = TensorView::RowElements(rows.shape);
    const std::vector<float> all = Values(rows);
    for (int64_t i = 0; i < rows.dim(0) * n; ++i) {
      Set(rows, i, std::ldexp(all[static_cast<size_t>(i)], static_cast<int>(-(i / n * step % 4))));
    }
  }
  // What pages make of rows: themselves, or what their bytes stand for.
  static Tensor Stored(const Tensor& rows, const Kind& kind) {
    const Shape shape = rows.view().shape;
    Tensor out(kind.pages == kind.act ? kind.act : DType::kFloat32, Device{}, shape);
    if (kind.pages == kind.act) {
      std::memcpy(out.view().data, rows.view().data, static_cast<size_t>(rows.size_bytes()));
      return out;
    }
    const Tensor pages(kind.pages, Device{}, ops::PagesShape(kind.pages, 1, shape.dims[1], shape.dims[2])),
        slots = Ints(std::vector<int32_t>(static_cast<size_t>(shape.dims[0]), -1), {shape.dims[0]});
    WriteBytePages(pages, rows, slots, false, false, out);
    return out;
  }
  std::vector<Tensor> q, k, v, stored_k, stored_v;
};

// Of each part a sequence of its own, as long as it needs: their indices and lengths.
std::pair<std::vector<size_t>, std::vector<int64_t>> Wholes(const std::vector<Part>& parts) {
  std::pair<std::vector<size_t>, std::vector<int64_t>> out;
  for (const Part& p : parts) {
    out.first.push_back(out.first.size());
    out.second.push_back(std::max<int64_t>(1, p.before + p.queries));
  }
  return out;
}

// Writes everything up to before + queries of each sequence to scattered pages, the rest being NaN, and
// attends. Returns [tokens, heads, head_dim] on the host.
Tensor Step(CudaContext& gpu, const Kind& kind, const Shapes& s, const Data& data,
            const std::vector<size_t>& which, const std::vector<Part>& parts, float scale) {
  const DType act = kind.act;
  const auto seqs = static_cast<int64_t>(parts.size());
  int64_t pages = 2, max_pages = 1, tokens = 0, cached = 0;
  ops::AttentionBatch batch;
  for (const Part& p : parts) {
    const int64_t n = (p.before + p.queries + 63) / 64;
    pages += n;
    max_pages = std::max(max_pages, n);
    tokens += p.queries;
    cached += p.before + p.queries;
    batch.max_query_tokens = std::max(batch.max_query_tokens, p.queries);
    batch.max_context_tokens = std::max(batch.max_context_tokens, p.before + p.queries);
  }
  std::vector<int32_t> order(static_cast<size_t>(pages)), offsets = {0}, contexts, slots;
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  std::vector<int32_t> table(static_cast<size_t>(seqs * max_pages), -1);
  const int64_t q_width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
  Tensor q(act, Device{}, {tokens, q_width + 8}), kv(act, Device{}, {cached, 2 * kv_width});
  const int64_t element = DTypeBytes(act);
  auto copy = [&](const TensorView& to, int64_t row, int64_t column, const TensorView& from, int64_t i) {
    std::memcpy(to.As<char>() + (row * to.row_stride + column) * element, from.Rows(i, 1).data,
                static_cast<size_t>(from.row_stride * element));
  };
  size_t next = 0;
  int64_t row = 0, kv_row = 0;
  std::vector<int32_t> table_offsets = {0};
  for (int64_t i = 0; i < seqs; ++i) {
    table_offsets.push_back(static_cast<int32_t>((i + 1) * max_pages));
    const Part& p = parts[static_cast<size_t>(i)];
    const size_t w = which[static_cast<size_t>(i)];
    const int64_t context = p.before + p.queries;
    for (int64_t j = 0; j < (context + 63) / 64; ++j) {
      table[static_cast<size_t>(i * max_pages + j)] = order[next++];
    }
    for (int64_t j = 0; j < context; ++j, ++kv_row) {
      copy(kv, kv_row, 0, data.k[w], j);
      copy(kv, kv_row, kv_width, data.v[w], j);
      slots.push_back(table[static_cast<size_t>(i * max_pages + j / 64)] * 64 + static_cast<int32_t>(j % 64));
    }
    for (int64_t j = p.before; j < context; ++j, ++row) copy(q, row, 0, data.q[w], j);
    offsets.push_back(static_cast<int32_t>(row));
    contexts.push_back(static_cast<int32_t>(context));
  }
  const Shape shape = ops::PagesShape(kind.pages, pages, s.kv_heads, s.head_dim);
  const Tensor slots_host = Ints(slots, {cached}), k_host(kind.pages, Device{}, shape),
               v_host(kind.pages, Device{}, shape);
  std::memset(k_host.view().data, 0xff, static_cast<size_t>(k_host.size_bytes()));
  std::memset(v_host.view().data, 0xff, static_cast<size_t>(v_host.size_bytes()));
  const auto write = [&](const Tensor& to, int64_t column) {
    const TensorView rows = kv.view().Columns(column, kv_width).Reshape({cached, s.kv_heads, s.head_dim});
    if (ops::PagesHoldBytes(kind.pages)) return WriteBytePages(to, rows, slots_host, false, false);
    WritePages(to, rows, slots_host);
  };
  write(k_host, 0);
  write(v_host, kv_width);
  const Tensor q_gpu = ToDevice(gpu, q), k_pages = ToDevice(gpu, k_host), v_pages = ToDevice(gpu, v_host),
               o_gpu = ToDevice(gpu, Ints(offsets, {seqs + 1})),
               c_gpu = ToDevice(gpu, Ints(contexts, {seqs})),
               t_gpu = ToDevice(gpu, Ints(table, {seqs * max_pages})),
               t_offsets = ToDevice(gpu, Ints(table_offsets, {seqs + 1})),
               out = PoisonedOnDevice(gpu, act, {tokens, s.heads, s.head_dim});
  batch.query_offsets = o_gpu;
  batch.context_tokens = c_gpu;
  batch.table_offsets = t_offsets;
  batch.block_tables = t_gpu;
  ops::PagedAttention(gpu.ctx, out, q_gpu.view().Columns(0, q_width).Reshape({tokens, s.heads, s.head_dim}),
                      k_pages, v_pages, batch, scale);
  EXPECT_EQ(gpu.workspace.Mark(), 0);
  return ToHost(gpu, out);
}

void ExpectRow(const Data& data, size_t w, const Shapes& s, const TensorView& out, int64_t row,
               int64_t position, float scale, double absolute, double relative) {
  Tensor expected(DType::kFloat32, Device{}, {position + 1, s.heads, s.head_dim});
  std::vector<int64_t> keys(static_cast<size_t>(position + 1));
  std::iota(keys.begin(), keys.end(), 0);
  reference::AttendRow(expected, data.q[w], position, data.stored_k[w], data.stored_v[w], keys, scale);
  SCOPED_TRACE(testing::Message() << "sequence " << w << " position " << position);
  ExpectClose(out.Rows(row, 1), expected.view().Rows(position, 1), absolute, relative);
}

TEST(CudaPagedAttention, RaggedBatchAgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (const Shapes& s :
         {Shapes{20, 4, 128}, Shapes{16, 2, 128}, Shapes{4, 2, 64}, Shapes{3, 3, 80}, Shapes{2, 2, 24},
          Shapes{12, 1, 64}, Shapes{2, 1, 7}, Shapes{5, 1, 1}, Shapes{2, 2, 33}, Shapes{1, 1, 256}}) {
      SCOPED_TRACE(testing::Message()
                   << kind.Name() << " " << s.heads << "/" << s.kv_heads << " heads of " << s.head_dim);
      const std::vector<Part> parts = {{0, 1},   {0, 200}, {63, 1},  {64, 1},  {300, 77}, {0, 64},
                                       {255, 1}, {256, 1}, {500, 2}, {999, 1}, {700, 65}, {0, 0}};
      const auto [which, contexts] = Wholes(parts);
      const Data data(3, kind, s, contexts);
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const Tensor out = Step(gpu, kind, s, data, which, parts, scale);
      int64_t row = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        for (int64_t j = 0; j < parts[i].queries; ++j, ++row) {
          const bool edge = j < 2 || j > parts[i].queries - 3 || j == 63 || j == 64;
          if (edge) ExpectRow(data, i, s, out, row, parts[i].before + j, scale, Absolute(act), Relative(act));
          for (float x : Values(out.view().Rows(row, 1))) ASSERT_TRUE(std::isfinite(x)) << "row " << row;
        }
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

// Every length of a split: decode of contexts that take one, several and many.
TEST(CudaPagedAttention, LongContextsAgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  for (const Kind& kind : kKinds) {
    if (kind.act != DType::kBFloat16) continue;
    for (const Shapes& s : {Shapes{5, 1, 128}, Shapes{4, 2, 64}}) {
      SCOPED_TRACE(testing::Message() << kind.Name() << " head_dim " << s.head_dim);
      const std::vector<Part> parts = {{4095, 1}, {4096, 1}, {6000, 1}, {16384, 1}, {30000, 1}, {70001, 1}};
      const auto [which, contexts] = Wholes(parts);
      // Larger queries, so that few keys carry the weight and the result is not a mean near zero.
      const Data data(11, kind, s, contexts, 1.5f);
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const Tensor out = Step(gpu, kind, s, data, which, parts, scale);
      for (size_t i = 0; i < parts.size(); ++i) {
        ExpectRow(data, i, s, out, static_cast<int64_t>(i), parts[i].before, scale, 1e-2, 1e-2);
      }
    }
  }
}

// Short chunks of long prompts beside decodes: their keys are split between blocks, evenly or not, the last
// split of some holding keys that only some rows see.
TEST(CudaPagedAttention, ChunksOfLongContextsAgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const std::vector<std::vector<Part>> batches = {
      {{2040, 9}},                                   // one block of keys more than one split
      {{4090, 40}, {0, 70}, {9000, 1}, {2047, 65}},  // splits that one sequence has and others do not
      {{20479, 2}, {100, 30}, {20470, 20}, {0, 0}},  // few rows
      {{3000, 1100}, {17, 1}, {5000, 260}},          // nearly as many tiles as fill the chip
      {{40001, 8}, {39999, 1}},
  };
  for (const Kind& kind : kKinds) {
    if (kind.act != DType::kBFloat16) continue;
    for (const Shapes& s : {Shapes{4, 2, 128}, Shapes{8, 1, 64}, Shapes{3, 3, 80}}) {
      if (ops::PagesHoldBytes(kind.pages) && s.head_dim == 80) continue;
      SCOPED_TRACE(testing::Message()
                   << kind.Name() << " " << s.heads << "/" << s.kv_heads << " heads of " << s.head_dim);
      for (const std::vector<Part>& parts : batches) {
        const auto [which, contexts] = Wholes(parts);
        SCOPED_TRACE(testing::Message() << "batch of " << parts[0].before << " + " << parts[0].queries);
        const Data data(41, kind, s, contexts, 1.5f);
        const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
        const Tensor out = Step(gpu, kind, s, data, which, parts, scale);
        int64_t row = 0;
        for (size_t i = 0; i < parts.size(); ++i) {
          for (int64_t j = 0; j < parts[i].queries; ++j, ++row) {
            const bool edge = j == 0 || j == parts[i].queries - 1 || j == 8 || j == 64;
            if (edge) ExpectRow(data, i, s, out, row, parts[i].before + j, scale, 1e-2, 1e-2);
            for (float x : Values(out.view().Rows(row, 1))) ASSERT_TRUE(std::isfinite(x)) << "row " << row;
          }
        }
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

// Prompts of which the last block of keys is short by one or full, which take every buffer of the kernel many
// times, and whose tokens have scales of their own.
TEST(CudaPagedAttention, ChunksOfUnevenTokensAgainstReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  for (const Kind& kind : kKinds) {
    if (kind.act != DType::kBFloat16) continue;
    for (const Shapes& s : {Shapes{20, 4, 128}, Shapes{12, 1, 64}, Shapes{3, 3, 64}, Shapes{3, 3, 128}}) {
      SCOPED_TRACE(testing::Message()
                   << kind.Name() << " " << s.heads << "/" << s.kv_heads << " heads of " << s.head_dim);
      const std::vector<Part> parts = {{0, 127},  {0, 128},  {0, 129}, {1, 190},   {128, 64},
                                       {129, 63}, {700, 69}, {0, 9},   {2000, 49}, {5000, 100}};
      const auto [which, contexts] = Wholes(parts);
      const Data data(41, kind, s, contexts, 1.5f, true);
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const Tensor out = Step(gpu, kind, s, data, which, parts, scale);
      int64_t row = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        for (int64_t j = 0; j < parts[i].queries; ++j, ++row) {
          if (j % 31 != 0 && j != parts[i].queries - 1) continue;
          ExpectRow(data, i, s, out, row, parts[i].before + j, scale, 1e-2, 1e-2);
        }
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(CudaPagedAttention, RowsDoNotDependOnTheBatchOrOnChunks) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  for (const Kind& kind : kKinds) {
    for (const Shapes& s : {Shapes{20, 4, 128}, Shapes{12, 1, 64}, Shapes{4, 4, 80}}) {
      SCOPED_TRACE(testing::Message() << kind.Name() << " head_dim " << s.head_dim);
      const Data data(21, kind, s, {700, 1200, 90});
      const Tensor whole = Step(gpu, kind, s, data, {0, 1, 2}, {{0, 700}, {1199, 1}, {20, 70}}, 0.1f);
      // Alone, in another order.
      const Tensor swapped = Step(gpu, kind, s, data, {2, 1, 0}, {{20, 70}, {1199, 1}, {0, 700}}, 0.1f);
      ExpectSameBits(swapped.view().Rows(0, 70), whole.view().Rows(701, 70));
      ExpectSameBits(swapped.view().Rows(70, 1), whole.view().Rows(700, 1));
      ExpectSameBits(swapped.view().Rows(71, 700), whole.view().Rows(0, 700));
      const Tensor decode = Step(gpu, kind, s, data, {1}, {{1199, 1}}, 0.1f);
      ExpectSameBits(decode, whole.view().Rows(700, 1));
      // In chunks.
      int64_t begin = 0;
      for (int64_t count : {100, 3, 64, 133, 400}) {
        const Tensor chunk = Step(gpu, kind, s, data, {0}, {{begin, count}}, 0.1f);
        ExpectSameBits(chunk, whole.view().Rows(begin, count));
        begin += count;
      }
    }
  }
}

// Also what would else be a decode.
TEST(CudaPagedAttention, BatchInvariantRowsDoNotDependOnTheLengthOfChunks) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  gpu.ctx.batch_invariant = true;
  for (const Kind& kind : kKinds) {
    for (const Shapes& s : {Shapes{20, 4, 128}, Shapes{4, 2, 64}, Shapes{4, 4, 80}, Shapes{2, 2, 24}}) {
      SCOPED_TRACE(testing::Message() << kind.Name() << " head_dim " << s.head_dim);
      const Data data(22, kind, s, {700, 300});
      const Tensor whole = Step(gpu, kind, s, data, {0}, {{0, 700}}, 0.1f);
      int64_t begin = 0;
      for (int64_t count : {100, 1, 3, 64, 1, 1, 130, 2, 397, 1}) {
        const Tensor chunk = Step(gpu, kind, s, data, {0}, {{begin, count}}, 0.1f);
        ExpectSameBits(chunk, whole.view().Rows(begin, count));
        const Tensor among = Step(gpu, kind, s, data, {1, 0, 1}, {{0, 65}, {begin, count}, {299, 1}}, 0.1f);
        ExpectSameBits(among.view().Rows(65, count), whole.view().Rows(begin, count));
        begin += count;
      }
      ASSERT_EQ(begin, 700);
    }
  }
}

// Beyond the first split of keys, whose borders then are the same for every row.
TEST(CudaPagedAttention, BatchInvariantRowsOfLongContexts) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  gpu.ctx.batch_invariant = true;
  for (const Kind& kind : kKinds) {
    if (kind.act != DType::kBFloat16) continue;
    for (const Shapes& s : {Shapes{4, 2, 128}, Shapes{6, 1, 64}}) {
      SCOPED_TRACE(testing::Message() << kind.Name() << " head_dim " << s.head_dim);
      const Data data(23, kind, s, {16500, 20000, 300}, 1.5f);
      const Tensor whole = Step(gpu, kind, s, data, {0}, {{7900, 8600}}, 0.1f);
      for (int64_t j : {0, 291, 292, 293, 4000, 8484, 8599})
        ExpectRow(data, 0, s, whole, j, 7900 + j, 0.1f, 1e-2, 1e-2);
      // Around 8192 and 16384 keys.
      for (const Part& p : {Part{7900, 1}, Part{8190, 5}, Part{8191, 1}, Part{8192, 1}, Part{8100, 300},
                            Part{16380, 9}, Part{16383, 1}, Part{16384, 1}, Part{16499, 1}}) {
        SCOPED_TRACE(testing::Message() << p.queries << " after " << p.before);
        const Tensor chunk = Step(gpu, kind, s, data, {0}, {p}, 0.1f);
        ExpectSameBits(chunk, whole.view().Rows(p.before - 7900, p.queries));
        const Tensor among = Step(gpu, kind, s, data, {1, 0, 2}, {{19000, 500}, p, {299, 1}}, 0.1f);
        ExpectSameBits(among.view().Rows(500, p.queries), whole.view().Rows(p.before - 7900, p.queries));
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(CudaPagedAttention, LargeScores) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const Shapes s{8, 2, 128};
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (float size : {20.0f, 60.0f}) {
      const Data data(31, kind, s, {300, 300}, size);
      const Tensor out = Step(gpu, kind, s, data, {0, 1}, {{100, 200}, {299, 1}}, 0.1f);
      // A float32 score of size x is uncertain by x 2^-24, and so is the logarithm of its probability.
      const double score = static_cast<double>(size) * static_cast<double>(size) * 0.1 * 60 * 5e-7;
      for (int64_t j : {0, 63, 64, 199}) {
        ExpectRow(data, 0, s, out, j, 100 + j, 0.1f, Absolute(act) + score, Relative(act) + score);
      }
      ExpectRow(data, 1, s, out, 200, 299, 0.1f, Absolute(act) + score, Relative(act) + score);
    }
  }
}

TEST(CudaSegmentAttention, AgainstReferenceAndAlone) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(6);
  for (DType act : kActs) {
    for (const Shapes& s :
         {Shapes{4, 4, 80}, Shapes{2, 2, 24}, Shapes{1, 1, 128}, Shapes{2, 2, 64}, Shapes{3, 3, 9}}) {
      SCOPED_TRACE(testing::Message() << DTypeName(act) << " head_dim " << s.head_dim);
      const std::vector<int32_t> lengths = {1, 16, 64, 0, 65, 130, 600};
      std::vector<int32_t> ends = {0};
      for (int32_t n : lengths) ends.push_back(ends.back() + n);
      const int64_t rows = ends.back(), width = s.heads * s.head_dim;
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const Tensor fused = Random(rng, act, {rows, 3 * width});
      const Tensor fused_gpu = ToDevice(gpu, fused),
                   offsets = ToDevice(gpu, Ints(ends, {static_cast<int64_t>(ends.size())}));
      TensorView host[3], parts[3];
      for (int i = 0; i < 3; ++i) {
        host[i] = fused.view().Columns(i * width, width).Reshape({rows, s.heads, s.head_dim});
        parts[i] = fused_gpu.view().Columns(i * width, width).Reshape({rows, s.heads, s.head_dim});
      }
      Tensor expected(DType::kFloat32, Device{}, {rows, s.heads, s.head_dim});
      for (size_t i = 0; i < lengths.size(); ++i) {
        std::vector<int64_t> keys(static_cast<size_t>(lengths[i]));
        std::iota(keys.begin(), keys.end(), ends[i]);
        for (int64_t row : keys) reference::AttendRow(expected, host[0], row, host[1], host[2], keys, scale);
      }
      const Tensor out = PoisonedOnDevice(gpu, act, {rows, s.heads, s.head_dim}),
                   alone = PoisonedOnDevice(gpu, act, {600, s.heads, s.head_dim}),
                   two = ToDevice(gpu, Ints({0, 600}, {2}));
      ops::SegmentAttention(gpu.ctx, out, parts[0], parts[1], parts[2], offsets, 600, scale);
      const Tensor found = ToHost(gpu, out);
      ExpectClose(found, expected, Absolute(act), Relative(act));
      const int64_t first = rows - 600;
      ops::SegmentAttention(gpu.ctx, alone, parts[0].Rows(first, 600), parts[1].Rows(first, 600),
                            parts[2].Rows(first, 600), two, 600, scale);
      ExpectSameBits(ToHost(gpu, alone), found.view().Rows(first, 600));
    }
  }
}

}  // namespace
}  // namespace fd
