#include "compute/ops/attention.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "compute/kernels/cpu/attention.h"
#include "compute/kernels/cpu/rows.h"
#include "compute/kernels/cuda/attention.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

static_assert(kPageTokens == cpu::kBlockTokens && kPageTokens == cuda::kKvPageTokens);

// Query rows of a tile: enough that fetching a block costs little beside using it, few enough that queries,
// probabilities and sums stay in the second-level cache. A multiple of the kernels' register tiles.
constexpr int64_t kTileRows = 96;
// Where there are few tiles, they are cut down to this.
constexpr int64_t kMinTileRows = 16;

// [tokens, heads, head_dim] of an activation type.
void CheckHeads(const TensorView& t, const char* name, DType dtype, int64_t tokens, int64_t heads,
                int64_t head_dim) {
  FD_CHECK(t.rank() == 3 && t.dim(0) == tokens && t.dim(1) == heads && t.dim(2) == head_dim, name, " is ",
           t.shape.ToString(), ", expected [", tokens, ", ", heads, ", ", head_dim, "]");
  FD_CHECK(t.dtype == dtype, name, " is ", DTypeName(t.dtype), ", expected ", DTypeName(dtype));
}

// Pages of kv_heads heads for act; both tensors alike.
void CheckPages(const TensorView& k, const TensorView& v, DType act, int64_t head_dim) {
  const bool bytes = PagesHoldBytes(k.dtype);
  FD_CHECK(k.rank() == (bytes ? 3 : 4) && k.shape == v.shape && k.IsContiguous() && v.IsContiguous() &&
               v.dtype == k.dtype && (bytes || k.dtype == act) &&
               k.shape == PagesShape(k.dtype, k.dim(0), k.dim(1), head_dim),
           DTypeName(k.dtype), " ", k.shape.ToString(), ", ", DTypeName(v.dtype), " ", v.shape.ToString(),
           " with heads of ", head_dim);
}

// The k-th head of row i.
char* HeadAt(const TensorView& t, int64_t row, int64_t head) {
  return RowAt(t, row) + head * t.dim(2) * DTypeBytes(t.dtype);
}

// Of one head of a page, scales included.
int64_t PageHeadElements(DType pages, int64_t head_dim) {
  const int64_t scale_bytes = PagesHoldBytes(pages) ? DTypeBytes(DType::kBFloat16) : 0;
  return kPageTokens * (head_dim + scale_bytes);
}

// Tokens per tile. Results do not depend on it, so small batches are cut finer to occupy all threads.
int64_t TileTokens(const Context& ctx, int64_t total_tokens, int64_t group, int64_t kv_heads) {
  const int64_t threads = ctx.threads == nullptr ? 1 : ctx.threads->num_threads();
  int64_t tokens = std::max<int64_t>(1, kTileRows / group);
  while (tokens > 1 && tokens * group > kMinTileRows && total_tokens * kv_heads / tokens < 4 * threads) {
    tokens = (tokens + 1) / 2;
  }
  return tokens;
}

// fn(item, scratch) for every item; one scratch block per thread. Each thread begins with a range of its own,
// in order, and helps with the others' when that is done: neighbours then mostly run on one thread, which has
// asked for the next item's memory during this one.
template <typename Fn>
void ForItems(const Context& ctx, int64_t items, const TensorView& scratch, const Fn& fn) {
  const int64_t threads = ctx.threads == nullptr || items <= 1 ? 1 : ctx.threads->num_threads();
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  std::vector<Range> ranges(static_cast<size_t>(threads));
  for (int64_t r = 0; r < threads; ++r) {
    ranges[r].next.store(items * r / threads, std::memory_order_relaxed);
    ranges[r].end = items * (r + 1) / threads;
  }
  auto work = [&](int thread) {
    char* mine = RowAt(scratch, thread);
    for (int64_t r = 0; r < threads; ++r) {
      Range& range = ranges[(thread + r) % threads];
      for (int64_t i; (i = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;) fn(i, mine);
    }
  };
  if (threads == 1) {
    work(0);
  } else {
    ctx.threads->Run(work);
  }
}

// Runs the tiles, long ones first. Where there are too few to occupy the threads, the splits of a tile become
// items of their own.
void RunTiles(const Context& ctx, DType act, std::vector<cpu::AttentionTile>& tiles) {
  if (tiles.empty()) return;
  FD_CHECK(ctx.workspace != nullptr, "attention needs a workspace");
  const cpu::AttentionKernels& kernels = cpu::GetAttentionKernels(act);
  std::stable_sort(tiles.begin(), tiles.end(), [](const cpu::AttentionTile& a, const cpu::AttentionTile& b) {
    return a.max_visible() * a.rows() > b.max_visible() * b.rows();
  });
  const int64_t threads = ctx.threads == nullptr ? 1 : ctx.threads->num_threads();
  int64_t max_rows = 0;
  for (const cpu::AttentionTile& tile : tiles) max_rows = std::max(max_rows, tile.rows());
  const int64_t head_dim = tiles[0].head_dim;
  const int64_t mark = ctx.workspace->Mark();
  const TensorView scratch = ctx.workspace->Take(
      DType::kUInt8, {threads, (kernels.scratch_bytes(max_rows, head_dim) + 63) / 64 * 64});

  const int64_t count = static_cast<int64_t>(tiles.size());
  if (threads == 1 || count >= 4 * threads) {
    ForItems(ctx, count, scratch, [&](int64_t i, char* mine) { kernels.attend(tiles[i], mine); });
    ctx.workspace->Release(mark);
    return;
  }
  struct Item {
    int64_t tile;
    int64_t split;
    int64_t offset;  // floats
  };
  std::vector<Item> items;
  std::vector<int64_t> first_offset(tiles.size());
  int64_t floats = 0;
  for (int64_t t = 0; t < count; ++t) {
    const int64_t splits = tiles[t].splits();
    first_offset[t] = floats;
    for (int64_t s = 0; s < splits; ++s) {
      items.push_back({t, s, floats});
      if (splits > 1) floats += kernels.partial_floats(tiles[t].rows(), head_dim);
    }
  }
  const TensorView partials = ctx.workspace->Take(DType::kFloat32, {std::max<int64_t>(floats, 1)});
  std::vector<std::atomic<int64_t>> missing(tiles.size());
  for (int64_t t = 0; t < count; ++t) missing[t].store(tiles[t].splits(), std::memory_order_relaxed);
  ForItems(ctx, static_cast<int64_t>(items.size()), scratch, [&](int64_t i, char* mine) {
    const int64_t t = items[i].tile;
    const cpu::AttentionTile& tile = tiles[t];
    if (tile.splits() == 1) return kernels.attend(tile, mine);
    kernels.attend_split(tile, items[i].split, partials.As<float>() + items[i].offset, mine);
    // Whoever ends the last split of a tile merges all of them.
    if (missing[t].fetch_sub(1, std::memory_order_acq_rel) == 1) {
      kernels.merge(tile, partials.As<float>() + first_offset[t], mine);
    }
  });
  ctx.workspace->Release(mark);
}

// The width to which a block's values are filled up where a block is made for one call.
int64_t PackedColumns(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
// Elements of a block of keys or of values so made.
int64_t PackedElements(int64_t head_dim) { return kPageTokens * PackedColumns(head_dim); }

// Blocks of one head over all segments of so many rows, at most.
int64_t PackedBlocks(int64_t rows, int64_t segments) { return rows / kPageTokens + segments; }

// Heads that are brought into blocks at once: few, because the copy costs memory, but enough tiles for all
// threads.
int64_t PackedHeads(const Context& ctx, int64_t heads, int64_t blocks) {
  const int64_t threads = ctx.threads == nullptr ? 1 : ctx.threads->num_threads();
  return std::clamp<int64_t>(32 * threads / std::max<int64_t>(1, blocks), std::min<int64_t>(4, heads), heads);
}

// Calls fn(first token, tokens, page, offset in the page) for the parts of [begin, end) whose slots follow
// each other in one page; rows that go nowhere are left out.
template <typename Fn>
void ForSlotRuns(const int32_t* slots, int64_t begin, int64_t end, const Fn& fn) {
  for (int64_t t = begin; t < end;) {
    const int64_t slot = slots[t], offset = slot % kPageTokens;
    int64_t count = 1;
    while (slot >= 0 && t + count < end && offset + count < kPageTokens && slots[t + count] == slot + count) {
      ++count;
    }
    if (slot >= 0) fn(t, count, slot / kPageTokens, offset);
    t += count;
  }
}

// Buffers of one tile of query rows for each thread, and partial results where a few tiles with long contexts
// are split between threads: fewer than 4 a thread, of at most split_rows rows each.
int64_t TilesScratchBytes(const Context& ctx, int64_t heads, int64_t kv_heads, int64_t head_dim,
                          int64_t tokens, int64_t max_context, int64_t split_rows) {
  constexpr int64_t kSplit = 512;
  const int64_t threads = ctx.threads == nullptr ? 1 : ctx.threads->num_threads();
  const int64_t group = heads / kv_heads, columns = (head_dim + 15) / 16 * 16;
  const int64_t tile = std::max(group, kTileRows);
  const int64_t tile_rows = std::min(tokens * group, tile);
  const int64_t per_thread =
      4 * (tile_rows * (3 * columns + kPageTokens + 7) + 3 * kPageTokens * columns) + 1024;
  const int64_t rows = std::min(tokens * heads, 4 * threads * std::min(split_rows, tile));
  const int64_t splits = (max_context + kSplit - 1) / kSplit;
  const int64_t partials = splits > 1 ? 4 * splits * (rows * (columns + 2) + 64 * threads) : 0;
  return threads * per_thread + partials + 4096;
}

void RunCuda(const Context& ctx, cuda::AttentionArgs& args) {
  if (args.tokens == 0 || args.seqs == 0) return;
  args.invariant = ctx.batch_invariant;
  const int64_t floats = cuda::AttentionScratchFloats(args);
  if (floats == 0) return cuda::Attention(args, ctx.stream);
  FD_CHECK(ctx.workspace != nullptr, "attention needs a workspace");
  const int64_t mark = ctx.workspace->Mark();
  args.scratch = ctx.workspace->Take(DType::kFloat32, {floats}).As<float>();
  cuda::Attention(args, ctx.stream);
  ctx.workspace->Release(mark);
}

}  // namespace

Shape PagesShape(DType pages, int64_t num_pages, int64_t kv_heads, int64_t head_dim) {
  if (PagesHoldBytes(pages)) return {num_pages, kv_heads, PageHeadElements(pages, head_dim)};
  return {num_pages, kv_heads, kPageTokens, head_dim};
}

void RopeAndWriteKv(const Context& ctx, const TensorView& q, const TensorView& k_pages,
                    const TensorView& v_pages, const TensorView& k, const TensorView& v,
                    const TensorView& cos_sin, const TensorView& slots, RopeStyle style) {
  CheckAct(q, "q");
  FD_CHECK_EQ(q.rank(), 3);
  CheckPages(k_pages, v_pages, q.dtype, q.dim(2));
  const int64_t tokens = q.dim(0), heads = q.dim(1), kv_heads = k_pages.dim(1), head_dim = q.dim(2);
  FD_CHECK_EQ(head_dim % 2, 0);
  CheckHeads(k, "k", q.dtype, tokens, kv_heads, head_dim);
  CheckHeads(v, "v", q.dtype, tokens, kv_heads, head_dim);
  FD_CHECK(cos_sin.dtype == DType::kFloat32 && cos_sin.shape == Shape({tokens, 2, head_dim / 2}) &&
               cos_sin.IsContiguous(),
           cos_sin.shape.ToString(), ", expected [", tokens, ", 2, ", head_dim / 2, "]");
  CheckVector(slots, "slots", DType::kInt32, tokens);
  const bool interleaved = style == RopeStyle::kInterleaved;
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&q, &k_pages, &v_pages, &k, &v, &cos_sin, &slots});
    cuda::RopeArgs args;
    args.q = q.data;
    args.k = k.data;
    args.v = v.data;
    args.k_pages = k_pages.data;
    args.v_pages = v_pages.data;
    args.cos_sin = cos_sin.As<float>();
    args.slots = slots.As<int32_t>();
    args.q_stride = q.row_stride;
    args.k_stride = k.row_stride;
    args.v_stride = v.row_stride;
    args.tokens = tokens;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_dim = head_dim;
    args.interleaved = interleaved;
    args.page_type = k_pages.dtype;
    return cuda::Rope(q.dtype, args, ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(q.dtype);
  const cpu::AttentionKernels& blocks = cpu::GetAttentionKernels(q.dtype);
  const int64_t block_bytes = PageHeadElements(k_pages.dtype, head_dim) * DTypeBytes(k_pages.dtype);
  auto work = [&](int64_t begin, int64_t end) {
    const float* angles = cos_sin.As<float>() + begin * head_dim;
    kernels.rope(RowAt(q, begin), q.row_stride, angles, end - begin, heads, head_dim, interleaved);
    kernels.rope(RowAt(k, begin), k.row_stride, angles, end - begin, kv_heads, head_dim, interleaved);
    ForSlotRuns(slots.As<int32_t>(), begin, end, [&](int64_t t, int64_t count, int64_t page, int64_t offset) {
      FD_CHECK(page < k_pages.dim(0), "page ", page, " of ", k_pages.dim(0));
      for (int64_t h = 0; h < kv_heads; ++h) {
        const int64_t to = (page * kv_heads + h) * block_bytes;
        if (PagesHoldBytes(k_pages.dtype)) {
          blocks.quantize_keys(k_pages.As<char>() + to, offset, HeadAt(k, t, h), k.row_stride, count,
                               head_dim, k_pages.dtype);
          blocks.quantize_values(v_pages.As<char>() + to, offset, HeadAt(v, t, h), v.row_stride, count,
                                 head_dim, k_pages.dtype);
          continue;
        }
        blocks.write_keys(k_pages.As<char>() + to, offset, HeadAt(k, t, h), k.row_stride, count, head_dim);
        blocks.write_values(v_pages.As<char>() + to, offset, HeadAt(v, t, h), v.row_stride, count, head_dim,
                            head_dim);
      }
    });
  };
  // Whole pages of a prompt, so that keys are transposed many tokens at a time.
  const int64_t elements = (heads + 2 * kv_heads) * head_dim;
  if (ctx.threads != nullptr && tokens >= 2 * kPageTokens) {
    ctx.threads->ParallelFor(tokens, kPageTokens, work);
  } else {
    ForRowRanges(ctx, tokens, elements, work);
  }
}

int64_t PagedAttentionScratchBytes(const Context& ctx, DType act, int64_t heads, int64_t kv_heads,
                                   int64_t head_dim, int64_t tokens, int64_t seqs,
                                   int64_t max_context_tokens) {
  if (!OnCuda(ctx)) {
    // TileTokens has cut what would be too few tiles down to so many rows, else they are not split.
    const int64_t split_rows = std::max(heads / kv_heads, kMinTileRows);
    return TilesScratchBytes(ctx, heads, kv_heads, head_dim, tokens, max_context_tokens, split_rows);
  }
  static const int32_t any_table = 0;
  cuda::AttentionArgs args;
  args.block_tables = &any_table;
  args.q_stride = (heads + 2 * kv_heads) * head_dim;
  args.out_stride = heads * head_dim;
  args.tokens = args.max_query_tokens = tokens;
  args.seqs = seqs;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = head_dim;
  args.max_context_tokens = max_context_tokens;
  args.dtype = act;
  args.invariant = ctx.batch_invariant;
  return cuda::AttentionScratchFloats(args) * static_cast<int64_t>(sizeof(float));
}

int64_t SegmentAttentionScratchBytes(const Context& ctx, DType act, int64_t heads, int64_t head_dim,
                                     int64_t rows, int64_t segments, int64_t segment_rows) {
  if (OnCuda(ctx)) return 0;
  // Fewer rows may be packed for more heads at once, up to PackedHeads' 32 blocks a thread.
  const int64_t threads = ctx.threads == nullptr ? 1 : ctx.threads->num_threads();
  const int64_t blocks = std::max(32 * threads, std::min<int64_t>(4, heads) * PackedBlocks(rows, segments));
  return TilesScratchBytes(ctx, heads, heads, head_dim, rows, segment_rows, kTileRows) +
         2 * blocks * PackedElements(head_dim) * DTypeBytes(act) + 128;
}

void PagedAttention(const Context& ctx, const TensorView& out, const TensorView& q, const TensorView& k_pages,
                    const TensorView& v_pages, const AttentionBatch& batch, float scale) {
  CheckAct(q, "q");
  FD_CHECK_EQ(q.rank(), 3);
  CheckPages(k_pages, v_pages, q.dtype, q.dim(2));
  const int64_t heads = q.dim(1), head_dim = q.dim(2), kv_heads = k_pages.dim(1);
  CheckHeads(out, "out", q.dtype, q.dim(0), heads, head_dim);
  FD_CHECK(heads % kv_heads == 0, heads, " heads over ", kv_heads);
  const int64_t seqs = batch.context_tokens.NumElements(), group = heads / kv_heads;
  CheckVector(batch.context_tokens, "context_tokens", DType::kInt32, seqs);
  CheckVector(batch.query_offsets, "query_offsets", DType::kInt32, seqs + 1);
  CheckVector(batch.table_offsets, "table_offsets", DType::kInt32, seqs + 1);
  CheckVector(batch.block_tables, "block_tables", DType::kInt32, batch.block_tables.NumElements());
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &q, &k_pages, &v_pages, &batch.query_offsets, &batch.context_tokens,
                        &batch.table_offsets, &batch.block_tables});
    cuda::AttentionArgs args;
    args.out = out.data;
    args.q = q.data;
    args.k = k_pages.data;
    args.v = v_pages.data;
    args.query_offsets = batch.query_offsets.As<int32_t>();
    args.context_tokens = batch.context_tokens.As<int32_t>();
    args.table_offsets = batch.table_offsets.As<int32_t>();
    args.block_tables = batch.block_tables.As<int32_t>();
    args.out_stride = out.row_stride;
    args.q_stride = q.row_stride;
    args.pages = k_pages.dim(0);
    args.tokens = q.dim(0);
    args.seqs = seqs;
    args.heads = heads;
    args.kv_heads = kv_heads;
    args.head_dim = head_dim;
    args.max_query_tokens = batch.max_query_tokens;
    args.max_context_tokens = batch.max_context_tokens;
    args.scale = scale;
    args.dtype = q.dtype;
    args.page_type = k_pages.dtype;
    return RunCuda(ctx, args);
  }

  FD_CHECK(head_dim % 2 == 0 && scale > 0, head_dim, " ", scale);
  const int64_t tile_tokens = TileTokens(ctx, q.dim(0), group, kv_heads);
  const int64_t page_elements = PageHeadElements(k_pages.dtype, head_dim);
  std::vector<cpu::AttentionTile> tiles;
  for (int64_t s = 0; s < seqs; ++s) {
    const int64_t first = batch.query_offsets.As<int32_t>()[s];
    const int64_t queries = batch.query_offsets.As<int32_t>()[s + 1] - first;
    const int64_t context = batch.context_tokens.As<int32_t>()[s];
    if (queries == 0) continue;
    FD_CHECK(queries > 0 && first >= 0 && first + queries <= q.dim(0), "queries ", first, " + ", queries,
             " of ", q.dim(0));
    const int64_t first_page = batch.table_offsets.As<int32_t>()[s];
    const int64_t table_pages = batch.table_offsets.As<int32_t>()[s + 1] - first_page;
    FD_CHECK(first_page >= 0 && first_page + table_pages <= batch.block_tables.dim(0), first_page, " + ",
             table_pages, " of ", batch.block_tables.dim(0), " table entries");
    FD_CHECK(context >= queries && (context + kPageTokens - 1) / kPageTokens <= table_pages, context,
             " tokens, ", queries, " of them new, ", table_pages, " pages");
    const int32_t* table = batch.block_tables.As<int32_t>() + first_page;
    for (int64_t b = 0; b * kPageTokens < context; ++b) {
      FD_CHECK(table[b] >= 0 && table[b] < k_pages.dim(0), "page ", table[b], " of ", k_pages.dim(0));
    }
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
      for (int64_t t = 0; t < queries; t += tile_tokens) {
        cpu::AttentionTile tile;
        tile.q = HeadAt(q, first + t, kv * group);
        tile.out = HeadAt(out, first + t, kv * group);
        tile.q_stride = q.row_stride;
        tile.out_stride = out.row_stride;
        tile.tokens = std::min(tile_tokens, queries - t);
        tile.group = group;
        tile.head_dim = head_dim;
        tile.first_visible = context - queries + t + 1;
        tile.visible_step = 1;
        const int64_t head_bytes = kv * page_elements * DTypeBytes(k_pages.dtype);
        tile.k = k_pages.As<char>() + head_bytes;
        tile.v = v_pages.As<char>() + head_bytes;
        tile.blocks = table;
        tile.k_block_stride = tile.v_block_stride = kv_heads * page_elements;
        tile.value_columns = head_dim;
        tile.scale = scale;
        tile.block_type = k_pages.dtype;
        tiles.push_back(tile);
      }
    }
  }
  RunTiles(ctx, q.dtype, tiles);
}

void SegmentAttention(const Context& ctx, const TensorView& out, const TensorView& q, const TensorView& k,
                      const TensorView& v, const TensorView& segment_offsets, int64_t max_segment_rows,
                      float scale) {
  CheckAct(q, "q");
  FD_CHECK_EQ(q.rank(), 3);
  const int64_t rows = q.dim(0), heads = q.dim(1), head_dim = q.dim(2);
  CheckHeads(out, "out", q.dtype, rows, heads, head_dim);
  CheckHeads(k, "k", q.dtype, rows, heads, head_dim);
  CheckHeads(v, "v", q.dtype, rows, heads, head_dim);
  const int64_t segments = segment_offsets.NumElements() - 1;
  CheckVector(segment_offsets, "segment_offsets", DType::kInt32, segments + 1);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &q, &k, &v, &segment_offsets});
    cuda::AttentionArgs args;
    args.out = out.data;
    args.q = q.data;
    args.k = k.data;
    args.v = v.data;
    args.query_offsets = segment_offsets.As<int32_t>();
    args.out_stride = out.row_stride;
    args.q_stride = q.row_stride;
    args.k_stride = k.row_stride;
    args.v_stride = v.row_stride;
    args.tokens = rows;
    args.seqs = segments;
    args.heads = args.kv_heads = heads;
    args.head_dim = head_dim;
    args.max_query_tokens = args.max_context_tokens = max_segment_rows;
    args.scale = scale;
    args.dtype = q.dtype;
    return RunCuda(ctx, args);
  }
  FD_CHECK(scale > 0, scale);
  const int32_t* offsets = segment_offsets.As<int32_t>();
  struct Block {
    int64_t row;
    int64_t count;
  };
  std::vector<Block> blocks;
  std::vector<int64_t> first_block;
  for (int64_t s = 0; s < segments; ++s) {
    const int64_t begin = offsets[s], end = offsets[s + 1];
    FD_CHECK(begin >= 0 && begin <= end && end <= rows && end - begin <= max_segment_rows, "segment ", begin,
             " to ", end, " of ", rows, " rows, longest ", max_segment_rows);
    first_block.push_back(static_cast<int64_t>(blocks.size()));
    for (int64_t t = begin; t < end; t += kPageTokens) blocks.push_back({t, std::min(kPageTokens, end - t)});
  }
  if (blocks.empty()) return;
  FD_CHECK(ctx.workspace != nullptr, "attention needs a workspace");
  const cpu::AttentionKernels& kernels = cpu::GetAttentionKernels(q.dtype);
  const int64_t count = static_cast<int64_t>(blocks.size()), elements = PackedElements(head_dim);
  const int64_t at_once = PackedHeads(ctx, heads, count), tile_rows = TileTokens(ctx, rows, 1, at_once);
  const int64_t mark = ctx.workspace->Mark();
  const TensorView keys = ctx.workspace->Take(q.dtype, {at_once * count, elements}),
                   values = ctx.workspace->Take(q.dtype, {at_once * count, elements});
  std::vector<cpu::AttentionTile> tiles;
  for (int64_t first = 0; first < heads; first += at_once) {
    const int64_t together = std::min(at_once, heads - first);
    ForRowRanges(ctx, together * count, elements, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Block& block = blocks[static_cast<size_t>(i % count)];
        const int64_t h = first + i / count;
        kernels.write_keys(RowAt(keys, i), 0, HeadAt(k, block.row, h), k.row_stride, block.count, head_dim);
        kernels.write_values(RowAt(values, i), 0, HeadAt(v, block.row, h), v.row_stride, block.count,
                             head_dim, PackedColumns(head_dim));
      }
    });
    tiles.clear();
    for (int64_t s = 0; s < segments; ++s) {
      const int64_t begin = offsets[s], end = offsets[s + 1];
      for (int64_t h = 0; h < together; ++h) {
        const int64_t block = h * count + first_block[static_cast<size_t>(s)];
        for (int64_t t = begin; t < end; t += tile_rows) {
          cpu::AttentionTile tile;
          tile.q = HeadAt(q, t, first + h);
          tile.out = HeadAt(out, t, first + h);
          tile.q_stride = q.row_stride;
          tile.out_stride = out.row_stride;
          tile.tokens = std::min(tile_rows, end - t);
          tile.group = 1;
          tile.head_dim = head_dim;
          tile.first_visible = end - begin;
          tile.visible_step = 0;
          tile.k = RowAt(keys, block);
          tile.v = RowAt(values, block);
          tile.blocks = nullptr;
          tile.k_block_stride = tile.v_block_stride = elements;
          tile.value_columns = PackedColumns(head_dim);
          tile.scale = scale;
          tiles.push_back(tile);
        }
      }
    }
    RunTiles(ctx, q.dtype, tiles);
  }
  ctx.workspace->Release(mark);
}

}  // namespace fd::ops
