// Paged and segment attention: ragged batches against the reference, and the invariances bit by bit.
#include "compute/ops/attention.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "compute/kernels/reference/attention.h"
#include "tests/parity/parity.h"

namespace fd {
namespace {

using namespace parity;

const DType kActs[] = {DType::kFloat32, DType::kBFloat16};

// Activations and what their pages hold.
struct Kind {
  DType act;
  DType pages;
  std::string Name() const { return std::string(DTypeName(act)) + " on " + DTypeName(pages); }
};
const Kind kKinds[] = {{DType::kFloat32, DType::kFloat32},    {DType::kBFloat16, DType::kBFloat16},
                       {DType::kFloat32, DType::kFloat8E4M3}, {DType::kBFloat16, DType::kFloat8E4M3},
                       {DType::kFloat32, DType::kInt8},       {DType::kBFloat16, DType::kInt8}};

// Tokens of one sequence: q, k, v for all of its context.
struct Sequence {
  Tensor q, k, v;  // [context, heads | kv_heads, head_dim]
  int64_t context = 0;
};

struct Shapes {
  int64_t heads, kv_heads, head_dim;
};

Sequence MakeSequence(std::mt19937& rng, DType act, const Shapes& s, int64_t context, float scale = 1.0f) {
  return {Random(rng, act, {context, s.heads, s.head_dim}, scale),
          Random(rng, act, {context, s.kv_heads, s.head_dim}, scale),
          Random(rng, act, {context, s.kv_heads, s.head_dim}), context};
}

// What pages make of a sequence: itself, or its keys and values as bytes stand for them.
Sequence Stored(const Sequence& sequence, const Kind& kind) {
  if (!ops::PagesHoldBytes(kind.pages)) return sequence;
  const Shape shape = sequence.k.view().shape;
  const Tensor slots(DType::kInt32, Device{}, {sequence.context});
  const Tensor pages(kind.pages, Device{}, ops::PagesShape(kind.pages, 1, shape.dims[1], shape.dims[2]));
  Sequence out{sequence.q, Tensor(DType::kFloat32, Device{}, shape), Tensor(DType::kFloat32, Device{}, shape),
               sequence.context};
  WriteBytePages(pages, sequence.k, slots, false, true, out.k);
  WriteBytePages(pages, sequence.v, slots, true, true, out.v);
  return out;
}

// A paged cache in which sequences own scattered pages; what no one owns is NaN.
class Cache {
 public:
  Cache(const Kind& kind, const Shapes& s, const std::vector<Sequence>& sequences, uint32_t seed = 5)
      : act_(kind.act), shapes_(s) {
    int64_t pages = 3;
    for (const Sequence& q : sequences) {
      pages += Pages(q.context);
      max_pages_ = std::max(max_pages_, Pages(q.context));
    }
    for (Tensor* t : {&k_, &v_}) {
      *t = Tensor(kind.pages, Device{}, ops::PagesShape(kind.pages, pages, s.kv_heads, s.head_dim));
      std::memset(t->view().data, 0xff, static_cast<size_t>(t->size_bytes()));
    }
    std::vector<int32_t> order(static_cast<size_t>(pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    for (const Sequence& q : sequences) {
      tables_.emplace_back(order.begin(), order.begin() + Pages(q.context));
      order.erase(order.begin(), order.begin() + Pages(q.context));
    }
  }
  static int64_t Pages(int64_t tokens) { return (tokens + ops::kPageTokens - 1) / ops::kPageTokens; }

  struct Chunk {
    size_t sequence;
    int64_t begin;
    int64_t count;
  };
  // One step: writes the chunks' keys and values, attends, and returns [tokens, heads, head_dim].
  Tensor Step(Cpu& cpu, const std::vector<Sequence>& sequences, const std::vector<Chunk>& chunks,
              float scale) {
    int64_t tokens = 0;
    for (const Chunk& c : chunks) tokens += c.count;
    const int64_t seqs = static_cast<int64_t>(chunks.size());
    const int64_t q_width = shapes_.heads * shapes_.head_dim, kv_width = shapes_.kv_heads * shapes_.head_dim;
    // q, k and v are columns of one fused row, as a projection leaves them.
    Tensor fused(act_, Device{}, {tokens, q_width + 2 * kv_width});
    Tensor offsets(DType::kInt32, Device{}, {seqs + 1}), context(DType::kInt32, Device{}, {seqs}),
        table(DType::kInt32, Device{}, {seqs * max_pages_}),
        table_offsets(DType::kInt32, Device{}, {seqs + 1}), slots(DType::kInt32, Device{}, {tokens}),
        out(act_, Device{}, {tokens, shapes_.heads, shapes_.head_dim});
    const size_t element = static_cast<size_t>(DTypeBytes(act_));
    int64_t row = 0;
    ops::AttentionBatch batch;
    for (int64_t s = 0; s < seqs; ++s) {
      const Chunk& c = chunks[static_cast<size_t>(s)];
      const Sequence& seq = sequences[c.sequence];
      const std::vector<int32_t>& pages = tables_[c.sequence];
      offsets.view().As<int32_t>()[s] = static_cast<int32_t>(row);
      context.view().As<int32_t>()[s] = static_cast<int32_t>(c.begin + c.count);
      table_offsets.view().As<int32_t>()[s + 1] = static_cast<int32_t>((s + 1) * max_pages_);
      for (int64_t p = 0; p < max_pages_; ++p) {
        const bool used = p < Pages(c.begin + c.count);
        table.view().As<int32_t>()[s * max_pages_ + p] = used ? pages[static_cast<size_t>(p)] : -1;
      }
      for (int64_t i = c.begin; i < c.begin + c.count; ++i, ++row) {
        char* to = fused.view().As<char>() + static_cast<size_t>(row * fused.view().row_stride) * element;
        std::memcpy(to, seq.q.view().Rows(i, 1).data, static_cast<size_t>(q_width) * element);
        to += static_cast<size_t>(q_width) * element;
        std::memcpy(to, seq.k.view().Rows(i, 1).data, static_cast<size_t>(kv_width) * element);
        to += static_cast<size_t>(kv_width) * element;
        std::memcpy(to, seq.v.view().Rows(i, 1).data, static_cast<size_t>(kv_width) * element);
        slots.view().As<int32_t>()[row] = static_cast<int32_t>(
            pages[static_cast<size_t>(i / ops::kPageTokens)] * ops::kPageTokens + i % ops::kPageTokens);
      }
      batch.max_query_tokens = std::max(batch.max_query_tokens, c.count);
      batch.max_context_tokens = std::max(batch.max_context_tokens, c.begin + c.count);
    }
    offsets.view().As<int32_t>()[seqs] = static_cast<int32_t>(row);
    batch.query_offsets = offsets;
    batch.context_tokens = context;
    batch.table_offsets = table_offsets;
    batch.block_tables = table;
    batch.slots = slots;
    const TensorView q = fused.view().Columns(0, q_width).Reshape({tokens, shapes_.heads, shapes_.head_dim});
    const TensorView k =
        fused.view().Columns(q_width, kv_width).Reshape({tokens, shapes_.kv_heads, shapes_.head_dim});
    const TensorView v = fused.view()
                             .Columns(q_width + kv_width, kv_width)
                             .Reshape({tokens, shapes_.kv_heads, shapes_.head_dim});
    if (ops::PagesHoldBytes(k_.view().dtype)) {
      WriteBytePages(k_, k, slots, false, true);
      WriteBytePages(v_, v, slots, true, true);
    } else {
      WriteCpuPages(k_, k, slots, false);
      WriteCpuPages(v_, v, slots, true);
    }
    ops::PagedAttention(cpu.ctx, out, q, k_, v_, batch, scale);
    EXPECT_EQ(cpu.workspace.Mark(), 0);
    return out;
  }

 private:
  DType act_;
  Shapes shapes_;
  int64_t max_pages_ = 1;
  Tensor k_, v_;
  std::vector<std::vector<int32_t>> tables_;
};

// All rows of a sequence, fed in the given chunk sizes.
Tensor Feed(Cpu& cpu, const Kind& kind, const Shapes& s, const Sequence& sequence,
            const std::vector<int64_t>& chunks, float scale) {
  const std::vector<Sequence> one = {sequence};
  Cache cache(kind, s, one);
  Tensor all(kind.act, Device{}, {sequence.context, s.heads, s.head_dim});
  int64_t begin = 0;
  for (size_t i = 0; begin < sequence.context; ++i) {
    const int64_t count = std::min(chunks[i % chunks.size()], sequence.context - begin);
    const Tensor out = cache.Step(cpu, one, {{0, begin, count}}, scale);
    std::memcpy(all.view().Rows(begin, count).data, out.view().data, static_cast<size_t>(out.size_bytes()));
    begin += count;
  }
  return all;
}

Tensor Expected(const Shapes& s, const Sequence& sequence, const std::vector<int64_t>& rows, float scale) {
  Tensor out(DType::kFloat32, Device{}, {sequence.context, s.heads, s.head_dim});
  for (int64_t row : rows) {
    std::vector<int64_t> keys(static_cast<size_t>(row + 1));
    std::iota(keys.begin(), keys.end(), 0);
    reference::AttendRow(out, sequence.q, row, sequence.k, sequence.v, keys, scale);
  }
  return out;
}

// bfloat16 probabilities and one rounding at the end, or float32 all along.
double Absolute(DType act) { return act == DType::kFloat32 ? 3e-6 : 1e-2; }
double Relative(DType act) { return act == DType::kFloat32 ? 1e-5 : 8e-3; }

const Shapes kShapes[] = {{16, 2, 128}, {4, 2, 64}, {3, 3, 80}, {2, 2, 24}, {6, 1, 64},
                          {2, 1, 6},    {5, 1, 2},  {2, 2, 34}, {1, 1, 256}};

TEST(PagedAttention, RaggedBatchAgainstReference) {
  std::mt19937 rng(1);
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (const Shapes& s : kShapes) {
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      std::vector<Sequence> sequences, stored;
      for (int64_t context : {1, 63, 64, 65, 150, 200, 700}) {
        sequences.push_back(MakeSequence(rng, act, s, context));
        stored.push_back(Stored(sequences.back(), kind));
      }
      ForEachIsa([&] {
        SCOPED_TRACE(testing::Message()
                     << kind.Name() << " " << s.heads << "/" << s.kv_heads << " x " << s.head_dim);
        Cpu cpu(3);
        Cache cache(kind, s, sequences);
        std::vector<Cache::Chunk> fill, mixed;
        for (size_t i = 0; i < sequences.size(); ++i) {
          // Decodes of one token beside prefill chunks.
          const int64_t last = i % 2 == 0 ? 1 : std::min<int64_t>(sequences[i].context, 40);
          if (sequences[i].context > last) fill.push_back({i, 0, sequences[i].context - last});
          mixed.push_back({i, sequences[i].context - last, last});
        }
        cache.Step(cpu, sequences, fill, scale);
        const Tensor out = cache.Step(cpu, sequences, mixed, scale);
        int64_t row = 0;
        for (const Cache::Chunk& c : mixed) {
          std::vector<int64_t> rows(static_cast<size_t>(c.count));
          std::iota(rows.begin(), rows.end(), c.begin);
          const Tensor expected = Expected(s, stored[c.sequence], rows, scale);
          ExpectClose(out.view().Rows(row, c.count), expected.view().Rows(c.begin, c.count), Absolute(act),
                      Relative(act));
          row += c.count;
        }
      });
    }
  }
}

TEST(PagedAttention, ChunksThreadsAndBatchDoNotShow) {
  std::mt19937 rng(2);
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (const Shapes& s : {Shapes{16, 2, 128}, Shapes{2, 2, 24}, Shapes{3, 1, 80}}) {
      const float scale = 0.11f;
      // Two splits, or three where it is cheap.
      const int64_t context = s.head_dim == 24 ? 1230 : 650, early = context - 130;
      const Sequence sequence = MakeSequence(rng, act, s, context, 1.5f);
      const Sequence other = MakeSequence(rng, act, s, 333);
      ForEachIsa([&] {
        SCOPED_TRACE(testing::Message() << kind.Name() << " head_dim " << s.head_dim);
        Cpu one(1), five(5);
        const Tensor whole = Feed(one, kind, s, sequence, {sequence.context}, scale);
        for (const std::vector<int64_t>& chunks :
             {std::vector<int64_t>{384}, {64}, {600, 1}, {7, 130, 1, 64, 63}}) {
          ExpectSameBits(Feed(five, kind, s, sequence, chunks, scale), whole);
        }
        // Beside another sequence, in both orders.
        const std::vector<Sequence> both = {sequence, other};
        Cache cache(kind, s, both, 9);
        cache.Step(five, both, {{1, 0, 300}, {0, 0, early}}, scale);
        const Tensor out = cache.Step(five, both, {{1, 300, 33}, {0, early, 130}}, scale);
        ExpectSameBits(out.view().Rows(33, 130), whole.view().Rows(early, 130));
      });
    }
  }
}

TEST(PagedAttention, DecodeAlone) {
  // Token by token over a border of pages and of splits.
  std::mt19937 rng(3);
  const Shapes s = {8, 2, 64};
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    const Sequence sequence = MakeSequence(rng, act, s, 530);
    ForEachIsa([&] {
      Cpu cpu(2);
      const Tensor whole = Feed(cpu, kind, s, sequence, {530}, 0.125f);
      std::vector<int64_t> chunks = {500};
      chunks.resize(31, 1);
      ExpectSameBits(Feed(cpu, kind, s, sequence, chunks, 0.125f), whole);
    });
  }
}

TEST(PagedAttention, WhatALaterTokenHoldsDoesNotReachEarlierRows) {
  std::mt19937 rng(4);
  const Shapes s = {8, 2, 40};
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (float poison : {NAN, INFINITY}) {
      const int64_t context = 90, bad = 71;
      Sequence sequence = MakeSequence(rng, act, s, context);
      ForEachIsa([&] {
        Cpu cpu(2);
        const Tensor clean = Feed(cpu, kind, s, sequence, {context}, 0.2f);
        Sequence poisoned = {sequence.q, Tensor(act, Device{}, sequence.k.view().shape),
                             Tensor(act, Device{}, sequence.v.view().shape), context};
        std::memcpy(poisoned.k.view().data, sequence.k.view().data,
                    static_cast<size_t>(sequence.k.size_bytes()));
        std::memcpy(poisoned.v.view().data, sequence.v.view().data,
                    static_cast<size_t>(sequence.v.size_bytes()));
        for (int64_t i = 0; i < s.kv_heads * s.head_dim; ++i) {
          Set(poisoned.k, bad * s.kv_heads * s.head_dim + i, poison);
          Set(poisoned.v, bad * s.kv_heads * s.head_dim + i, poison);
        }
        const Tensor out = Feed(cpu, kind, s, poisoned, {context}, 0.2f);
        ExpectSameBits(out.view().Rows(0, bad), clean.view().Rows(0, bad));
        for (float x : Values(out.view().Rows(bad, context - bad))) ASSERT_FALSE(std::isfinite(x));
      });
    }
  }
}

TEST(PagedAttention, LargeAndTinyScores) {
  std::mt19937 rng(5);
  const Shapes s = {4, 1, 32};
  for (const Kind& kind : kKinds) {
    const DType act = kind.act;
    for (float size : {1e-20f, 30.0f, 300.0f}) {
      const Sequence sequence = MakeSequence(rng, act, s, 140, size);
      std::vector<int64_t> rows(140);
      std::iota(rows.begin(), rows.end(), 0);
      const Tensor expected = Expected(s, Stored(sequence, kind), rows, 0.1f);
      ForEachIsa([&] {
        Cpu cpu(2);
        const Tensor out = Feed(cpu, kind, s, sequence, {140}, 0.1f);
        // A float32 score of size x is uncertain by x 2^-24, and so is the logarithm of its probability.
        const double score = static_cast<double>(size * size) * 0.1 * 32;
        ExpectClose(out, expected, Absolute(act) + score * 5e-7, Relative(act) + score * 5e-7);
      });
    }
  }
}

TEST(SegmentAttention, AgainstReferenceAndAlone) {
  std::mt19937 rng(6);
  for (DType act : kActs) {
    for (const Shapes& s : {Shapes{2, 2, 24}, Shapes{4, 4, 80}, Shapes{1, 1, 128}, Shapes{3, 3, 9}}) {
      const std::vector<int32_t> lengths = {1, 16, 64, 0, 65, 130, 600};
      std::vector<int32_t> ends = {0};
      for (int32_t n : lengths) ends.push_back(ends.back() + n);
      const int64_t rows = ends.back(), width = s.heads * s.head_dim;
      const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
      const Tensor fused = Random(rng, act, {rows, 3 * width});
      TensorView parts[3];
      for (int i = 0; i < 3; ++i) {
        parts[i] = fused.view().Columns(i * width, width).Reshape({rows, s.heads, s.head_dim});
      }
      Tensor offsets(DType::kInt32, Device{}, {static_cast<int64_t>(ends.size())});
      std::copy(ends.begin(), ends.end(), offsets.view().As<int32_t>());
      Tensor expected(DType::kFloat32, Device{}, {rows, s.heads, s.head_dim});
      for (size_t i = 0; i < lengths.size(); ++i) {
        std::vector<int64_t> keys(static_cast<size_t>(lengths[i]));
        std::iota(keys.begin(), keys.end(), ends[i]);
        for (int64_t row : keys) {
          reference::AttendRow(expected, parts[0], row, parts[1], parts[2], keys, scale);
        }
      }
      ForEachIsa([&] {
        SCOPED_TRACE(testing::Message() << DTypeName(act) << " head_dim " << s.head_dim);
        Cpu cpu(3), single(1);
        Tensor out(act, Device{}, {rows, s.heads, s.head_dim}), again(act, Device{}, out.view().shape);
        ops::SegmentAttention(cpu.ctx, out, parts[0], parts[1], parts[2], offsets, 600, scale);
        ExpectClose(out, expected, Absolute(act), Relative(act));
        ops::SegmentAttention(single.ctx, again, parts[0], parts[1], parts[2], offsets, 600, scale);
        ExpectSameBits(out, again);
        // The last segment alone.
        Tensor alone(act, Device{}, {600, s.heads, s.head_dim}), two(DType::kInt32, Device{}, {2});
        two.view().As<int32_t>()[1] = 600;
        const int64_t first = rows - 600;
        ops::SegmentAttention(cpu.ctx, alone, parts[0].Rows(first, 600), parts[1].Rows(first, 600),
                              parts[2].Rows(first, 600), two, 600, scale);
        ExpectSameBits(alone, out.view().Rows(first, 600));
      });
    }
  }
}

}  // namespace
}  // namespace fd
