// Decode over pages, bfloat16 or bytes: memory-bound, so keys and values go from memory straight to
// registers, already in the order of the tensor cores' operands, and each is read once for all query heads
// that share it.
//
// A block takes one kv head of one sequence and one split of its context; its four warps take 16 keys of each
// page. A warp computes S^T = K Q^T (16 keys x 8 rows), the softmax of its keys alone, and O^T += V^T P^T;
// dimensions are permuted so that every load is 16 bytes (8 of a value of 64 bytes). Where the splits lie
// depends on the sequence's own context alone, so that a row's result does not depend on the batch.
#include "compute/kernels/cuda/attention_tile.cuh"
#include "compute/kernels/cuda/bytes.cuh"
#include "compute/kernels/cuda/launch.cuh"

namespace fd::cuda::attention {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxSplits = 64;

__host__ __device__ inline int Pages(int64_t context) {
  return static_cast<int>((context + kKvPageTokens - 1) / kKvPageTokens);
}
// Pages of a split: short ones so that a short context still occupies the chip, long ones where there are
// many.
__host__ __device__ inline int SplitPages(int pages) {
  if (pages <= 64) return 4;
  if (pages <= 256) return 8;
  if (pages <= 1024) return 16;
  const int even = (pages + kMaxSplits - 1) / kMaxSplits;
  return even > 32 ? even : 32;
}
__host__ __device__ inline int Splits(int pages) {
  const int size = SplitPages(pages);
  return (pages + size - 1) / size;
}
// The most splits of any context up to `context`: SplitPages grows in steps.
inline int MaxSplitsUpTo(int64_t context) {
  const int pages = Pages(context);
  int most = Splits(pages);
  for (int edge : {64, 256, 1024, 2048}) {
    if (edge <= pages && Splits(edge) > most) most = Splits(edge);
  }
  return most;
}

// Partial results: [seqs, kv_heads, splits, rows] of head_dim sums, then maximum and weight sum.
__host__ __device__ inline int64_t PartialFloats(int head_dim) { return head_dim + 4; }

// Not .nc: the newest keys may be written while this kernel is already resident.
__device__ inline uint4 LoadOnce(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
__device__ inline uint2 LoadOnce(const uint2* p) {
  uint2 v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  return v;
}
__device__ inline uint32_t Transpose8x8(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

template <int D>
struct Frag {
  uint4 x[D / 16];  // K: [32 dims][row g, g + 8]; V: [64 dims][keys 2c, 2c + 1, 2c + 8, 2c + 9]
};

// What a warp holds of a page's 16 keys and values, and what it makes of it: load, K Q^T, V^T P^T, and to
// which dimensions the sums belong.
template <int D, DType B>
struct PageReader {
  // Queries: the dimensions of unit i of this thread.
  __device__ static int QueryDim(int i, int c) { return 32 * i + 8 * c; }
  __device__ static int OutDim(int t, int g) { return 64 * (t / 4) + 8 * g + 2 * (t % 4); }
  __device__ static void OrderQueries(uint4*) {}

  Frag<D> k, v, k_next;

  __device__ static void LoadKeys(Frag<D>& f, const char* head, int warp, int g, int c) {
    const char* p = head + (16 * warp + g) * D * 2 + 16 * c;
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      f.x[2 * i] = LoadOnce(reinterpret_cast<const uint4*>(p + 64 * i));
      f.x[2 * i + 1] = LoadOnce(reinterpret_cast<const uint4*>(p + 64 * i + 8 * D * 2));
    }
  }
  __device__ void Keys(const char* head, int warp, int g, int c) { LoadKeys(k, head, warp, g, c); }
  __device__ void NextKeys(const char* head, int warp, int g, int c) { LoadKeys(k_next, head, warp, g, c); }
  __device__ void Advance() { k = k_next; }
  // left: keys of the context from this page's first.
  __device__ void Values(const char* head, int left, int warp, int g, int c) {
    const char* p = head + 16 * g;
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int key = 16 * warp + 2 * c + (j & 1) + 8 * (j / 2);
        // What lies beyond the context may be anything, NaN too.
        v.x[4 * i + j] = key < left ? LoadOnce(reinterpret_cast<const uint4*>(p + key * D * 2 + 128 * i))
                                    : make_uint4(0, 0, 0, 0);
      }
    }
  }
  __device__ void Scores(float* s, const uint4* q) const {  // keys g, g + 8 of rows 2c, 2c + 1
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      const uint32_t a0[4] = {k.x[2 * i].x, k.x[2 * i + 1].x, k.x[2 * i].y, k.x[2 * i + 1].y};
      const uint32_t a1[4] = {k.x[2 * i].z, k.x[2 * i + 1].z, k.x[2 * i].w, k.x[2 * i + 1].w};
      Mma16816(s, a0, q[i].x, q[i].y);
      Mma16816(s, a1, q[i].z, q[i].w);
    }
  }
  __device__ float KeyScale(int) const { return 1.0f; }
  __device__ float ValueScale(int) const { return 1.0f; }
  __device__ void Accumulate(float (*o)[4], uint32_t p0, uint32_t p1) const {
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      const uint32_t* r0 = reinterpret_cast<const uint32_t*>(&v.x[4 * i]);
      const uint32_t* r1 = reinterpret_cast<const uint32_t*>(&v.x[4 * i + 1]);
      const uint32_t* r2 = reinterpret_cast<const uint32_t*>(&v.x[4 * i + 2]);
      const uint32_t* r3 = reinterpret_cast<const uint32_t*>(&v.x[4 * i + 3]);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const uint32_t f[4] = {__byte_perm(r0[u], r1[u], 0x5410), __byte_perm(r0[u], r1[u], 0x7632),
                               __byte_perm(r2[u], r3[u], 0x5410), __byte_perm(r2[u], r3[u], 0x7632)};
        Mma16816(o[4 * i + u], f, p0, p1);
      }
    }
  }
};

// Bytes: a load of 16 holds 16 dimensions of a key, which become bfloat16 in the order of bytes 0, 2, 1, 3 of
// every word, and the queries are brought into the same order once. Scales of keys meet the scores, those of
// values the probabilities.
template <int D, DType B>
  requires(HoldsBytes(B))
struct PageReader<D, B> {
  static constexpr int kValueBytes = D / 8;  // neighbouring dimensions of a thread's four values
  __device__ static int QueryDim(int i, int c) { return 64 * (i / 2) + 16 * c + 8 * (i % 2); }
  __device__ static int OutDim(int t, int g) { return kValueBytes * g + 2 * t; }
  __device__ static void OrderQueries(uint4* q) {
#pragma unroll
    for (int i = 0; i < D / 32; ++i) {
      q[i] = make_uint4(__byte_perm(q[i].x, q[i].y, 0x5410), __byte_perm(q[i].x, q[i].y, 0x7632),
                        __byte_perm(q[i].z, q[i].w, 0x5410), __byte_perm(q[i].z, q[i].w, 0x7632));
    }
  }

  struct KeyBytes {
    uint4 x[D / 32];  // [64 dims][row g, g + 8]
    float scale[2];   // of keys g, g + 8
  };
  KeyBytes k, k_next;
  uint32_t v[4][kValueBytes / 4];  // keys 2c, 2c + 1, 2c + 8, 2c + 9
  float v_scale[2];                // of keys g, g + 8

  // Those of this thread's keys are 0 and 8.
  __device__ static const volatile uint16_t* Scales(const char* head, int warp, int g) {
    return reinterpret_cast<const uint16_t*>(head + kKvPageTokens * D) + 16 * warp + g;
  }
  __device__ static void LoadKeys(KeyBytes& f, const char* head, int warp, int g, int c) {
    const char* p = head + (16 * warp + g) * D + 16 * c;
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      f.x[2 * i] = LoadOnce(reinterpret_cast<const uint4*>(p + 64 * i));
      f.x[2 * i + 1] = LoadOnce(reinterpret_cast<const uint4*>(p + 64 * i + 8 * D));
    }
    // Beyond the context these may be anything: such a score is taken away.
    const volatile uint16_t* scales = Scales(head, warp, g);
    f.scale[0] = WidenScale(scales[0]);
    f.scale[1] = WidenScale(scales[8]);
  }
  __device__ void Keys(const char* head, int warp, int g, int c) { LoadKeys(k, head, warp, g, c); }
  __device__ void NextKeys(const char* head, int warp, int g, int c) { LoadKeys(k_next, head, warp, g, c); }
  __device__ void Advance() { k = k_next; }
  __device__ void Values(const char* head, int left, int warp, int g, int c) {
    const char* p = head + kValueBytes * g;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      // Beyond the context: any byte is finite here, and its probability is 0.
      const int key = 16 * warp + 2 * c + (j & 1) + 8 * (j / 2);
      if constexpr (kValueBytes == 16) {
        const uint4 x = LoadOnce(reinterpret_cast<const uint4*>(p + key * D));
        v[j][0] = x.x;
        v[j][1] = x.y;
        v[j][2] = x.z;
        v[j][3] = x.w;
      } else {
        static_assert(kValueBytes == 8);
        const uint2 x = LoadOnce(reinterpret_cast<const uint2*>(p + key * D));
        v[j][0] = x.x;
        v[j][1] = x.y;
      }
    }
    const volatile uint16_t* scales = Scales(head, warp, g);
    v_scale[0] = 16 * warp + g < left ? WidenScale(scales[0]) : 0.0f;
    v_scale[1] = 16 * warp + g + 8 < left ? WidenScale(scales[8]) : 0.0f;
  }
  __device__ void Scores(float* s, const uint4* q) const {
#pragma unroll
    for (int i = 0; i < D / 64; ++i) {
      const uint32_t* r0 = reinterpret_cast<const uint32_t*>(&k.x[2 * i]);
      const uint32_t* r1 = reinterpret_cast<const uint32_t*>(&k.x[2 * i + 1]);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const uint32_t a[4] = {WidenEven<B>(r0[u]), WidenEven<B>(r1[u]), WidenOdd<B>(r0[u]),
                               WidenOdd<B>(r1[u])};
        const uint4 dims = q[2 * i + u / 2];
        Mma16816(s, a, u % 2 == 0 ? dims.x : dims.z, u % 2 == 0 ? dims.y : dims.w);
      }
    }
  }
  __device__ float KeyScale(int half) const { return k.scale[half]; }
  __device__ float ValueScale(int half) const { return v_scale[half]; }
  __device__ void Accumulate(float (*o)[4], uint32_t p0, uint32_t p1) const {
#pragma unroll
    for (int t = 0; t < D / 16; ++t) {
      const int word = t / 2, byte = t % 2 * 2;
      const uint32_t f[4] = {
          WidenBeside<B>(v[0][word], v[1][word], byte), WidenBeside<B>(v[0][word], v[1][word], byte + 1),
          WidenBeside<B>(v[2][word], v[3][word], byte), WidenBeside<B>(v[2][word], v[3][word], byte + 1)};
      Mma16816(o[t], f, p0, p1);
    }
  }
};

template <int D, DType B>
__global__ void __launch_bounds__(32 * kWarps, 3)
    DecodeKernel(AttentionArgs a, int max_splits, int max_rows) {
  LetNextBegin();
  WaitForPrevious();
  const int split = blockIdx.x, kv = blockIdx.y, seq = blockIdx.z;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int first = a.query_offsets[seq], queries = a.query_offsets[seq + 1] - first, rows = queries * group;
  if (rows == 0 || rows > kDecodeRows) return;
  const int context = a.context_tokens[seq], pages = Pages(context), size = SplitPages(pages);
  const int page_begin = split * size;
  if (page_begin >= pages) return;
  const int page_end = min(pages, page_begin + size);
  const int32_t* table = a.block_tables + a.table_offsets[seq];
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const float scale = a.scale * 1.4426950408889634f;

  using Reader = PageReader<D, B>;
  uint4 q[D / 32];  // row g
  {
    const int row = min(g, rows - 1);
    const auto* p = static_cast<const __nv_bfloat16*>(a.q) + (first + row / group) * a.q_stride +
                    (kv * group + row % group) * static_cast<int64_t>(D);
#pragma unroll
    for (int i = 0; i < D / 32; ++i) q[i] = *reinterpret_cast<const uint4*>(p + Reader::QueryDim(i, c));
    Reader::OrderQueries(q);
  }
  int visible[2];  // of rows 2c and 2c + 1
#pragma unroll
  for (int j = 0; j < 2; ++j) visible[j] = context - queries + min(2 * c + j, rows - 1) / group + 1;

  float o[D / 16][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  const int64_t head_bytes = HoldsBytes(B) ? ByteHeadSize(D) : static_cast<int64_t>(kKvPageTokens) * D * 2;
  auto page_at = [&](const void* base, int32_t id) {
    return static_cast<const char*>(base) + (id * a.kv_heads + kv) * head_bytes;
  };

  Reader reader;
  int32_t id = table[page_begin], id_next = page_begin + 1 < page_end ? table[page_begin + 1] : id;
  reader.Keys(page_at(a.k, id), warp, g, c);
  for (int page = page_begin; page < page_end; ++page) {
    const int base = page * kKvPageTokens;
    reader.Values(page_at(a.v, id), context - base, warp, g, c);
    id = id_next;
    if (page + 1 < page_end) reader.NextKeys(page_at(a.k, id), warp, g, c);
    if (page + 2 < page_end) id_next = table[page + 2];

    float s[4] = {};  // keys g, g + 8 of rows 2c, 2c + 1
    reader.Scores(s, q);
    const float by[2] = {scale * reader.KeyScale(0), scale * reader.KeyScale(1)};
    const int key = base + 16 * warp + g;
    float old[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      s[j] = key < visible[j] ? s[j] * by[0] : -INFINITY;
      s[j + 2] = key + 8 < visible[j] ? s[j + 2] * by[1] : -INFINITY;
      float m = fmaxf(s[j], s[j + 2]);
#pragma unroll
      for (int x = 4; x < 32; x *= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, x));
      m = fmaxf(m, top[j]);
      const float safe = m == -INFINITY ? 0.0f : m;
      old[j] = Exp2(top[j] - safe);
      top[j] = m;
      s[j] = Exp2(s[j] - safe);
      s[j + 2] = Exp2(s[j + 2] - safe);
      sum[j] = sum[j] * old[j] + (s[j] + s[j + 2]);
    }
    const float v0 = reader.ValueScale(0), v1 = reader.ValueScale(1);
    const uint32_t p0 = Transpose8x8(PackBf16(s[0] * v0, s[1] * v0)),
                   p1 = Transpose8x8(PackBf16(s[2] * v1, s[3] * v1));
#pragma unroll
    for (int t = 0; t < D / 16; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[t][e] *= old[e & 1];
    }
    reader.Accumulate(o, p0, p1);
    reader.Advance();
  }

  // Merge of the four warps: o[t] of rows 2c, 2c + 1 holds dims OutDim(t, g) + {0, 1}.
  __shared__ float parts[kWarps][kDecodeRows][D + 4];
  __shared__ float tops[kWarps][kDecodeRows], sums[kWarps][kDecodeRows];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int x = 4; x < 32; x *= 2) sum[j] += __shfl_xor_sync(~0u, sum[j], x);
    if (g == 0) {
      tops[warp][2 * c + j] = top[j];
      sums[warp][2 * c + j] = sum[j];
    }
#pragma unroll
    for (int t = 0; t < D / 16; ++t) {
      *reinterpret_cast<float2*>(&parts[warp][2 * c + j][Reader::OutDim(t, g)]) =
          make_float2(o[t][j], o[t][j + 2]);
    }
  }
  __syncthreads();
  const bool whole = page_begin == 0 && page_end == pages;
  for (int i = threadIdx.x; i < rows * D / 2; i += 32 * kWarps) {
    const int row = i / (D / 2), dim = i % (D / 2) * 2;
    float m = tops[0][row];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) m = fmaxf(m, tops[w][row]);
    const float safe = m == -INFINITY ? 0.0f : m;
    float total = 0, x = 0, y = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float e = Exp2(tops[w][row] - safe);
      total += e * sums[w][row];
      x += e * parts[w][row][dim];
      y += e * parts[w][row][dim + 1];
    }
    if (whole) {
      auto* out = static_cast<__nv_bfloat16*>(a.out) + (first + row / group) * a.out_stride +
                  (kv * group + row % group) * static_cast<int64_t>(D) + dim;
      *reinterpret_cast<uint32_t*>(out) = PackBf16(x / total, y / total);
    } else {
      float* part =
          a.scratch + (((seq * a.kv_heads + kv) * max_splits + split) * max_rows + row) * PartialFloats(D);
      *reinterpret_cast<float2*>(part + dim) = make_float2(x, y);
      if (dim == 0) *reinterpret_cast<float2*>(part + D) = make_float2(m, total);
    }
  }
}

// One block for each row of a sequence: out = sum of the splits.
template <int D>
__global__ void __launch_bounds__(D) MergeKernel(AttentionArgs a, int max_splits, int max_rows) {
  LetNextBegin();
  WaitForPrevious();
  const int row = blockIdx.x, kv = blockIdx.y, seq = blockIdx.z, dim = threadIdx.x;
  const int group = static_cast<int>(a.heads / a.kv_heads);
  const int first = a.query_offsets[seq], rows = (a.query_offsets[seq + 1] - first) * group;
  if (rows > kDecodeRows || row >= rows) return;
  const int splits = Splits(Pages(a.context_tokens[seq]));
  if (splits <= 1) return;
  const int64_t stride = max_rows * PartialFloats(D);
  const float* part =
      a.scratch +
      ((seq * a.kv_heads + kv) * max_splits * static_cast<int64_t>(max_rows) + row) * PartialFloats(D);
  __shared__ float weights[kMaxSplits];
  __shared__ float totals[kMaxSplits];
  if (dim < 32) {
    float m = -INFINITY;
    for (int s = dim; s < splits; s += 32) m = fmaxf(m, part[s * stride + D]);
#pragma unroll
    for (int x = 16; x > 0; x /= 2) m = fmaxf(m, __shfl_xor_sync(~0u, m, x));
    for (int s = dim; s < splits; s += 32) {
      weights[s] = Exp2(part[s * stride + D] - m);
      totals[s] = weights[s] * part[s * stride + D + 1];
    }
  }
  __syncthreads();
  float total = 0, sum = 0;
#pragma unroll 4
  for (int s = 0; s < splits; ++s) {
    total += totals[s];
    sum += weights[s] * part[s * stride + dim];
  }
  auto* out = static_cast<__nv_bfloat16*>(a.out) + (first + row / group) * a.out_stride +
              (kv * group + row % group) * static_cast<int64_t>(D) + dim;
  *out = __float2bfloat16_rn(sum / total);
}

// Packed rows a sequence of this call can have in the decode kernel.
int MaxRows(const AttentionArgs& a) {
  const int64_t rows = a.max_query_tokens * (a.heads / a.kv_heads);
  return static_cast<int>(rows < kDecodeRows ? rows : kDecodeRows);
}

template <int D, DType B>
void Launch(const AttentionArgs& a, cudaStream_t stream) {
  const int splits = MaxSplitsUpTo(a.max_context_tokens), rows = MaxRows(a);
  const dim3 heads_of_seqs(1, static_cast<unsigned>(a.kv_heads), static_cast<unsigned>(a.seqs));
  dim3 grid = heads_of_seqs;
  grid.x = static_cast<unsigned>(splits);
  LaunchOverlapped(DecodeKernel<D, B>, grid, 32 * kWarps, 0, stream, a, splits, rows);
  if (splits > 1) {
    grid.x = static_cast<unsigned>(rows);
    LaunchOverlapped(MergeKernel<D>, grid, D, 0, stream, a, splits, rows);
  }
}

}  // namespace

int64_t DecodeScratchFloats(const AttentionArgs& a) {
  const int splits = MaxSplitsUpTo(a.max_context_tokens);
  if (splits <= 1) return 0;
  return a.seqs * a.kv_heads * splits * MaxRows(a) * PartialFloats(static_cast<int>(a.head_dim));
}

void Decode(const AttentionArgs& a, void* stream) {
  auto* s = static_cast<cudaStream_t>(stream);
  const auto of_pages = [&]<DType B>(ByteType<B>) {
    if (a.head_dim == 64) {
      Launch<64, B>(a, s);
    } else {
      FD_CHECK_EQ(a.head_dim, int64_t{128});
      Launch<128, B>(a, s);
    }
  };
  if (HoldsBytes(a.page_type)) return ForBytes(a.page_type, of_pages);
  of_pages(ByteType<DType::kBFloat16>{});
}

}  // namespace fd::cuda::attention
