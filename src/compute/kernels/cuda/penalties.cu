// Penalties, biases and bans on logits, and the record of what each sequence has seen.
#include "compute/kernels/cuda/sample.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBatch = 4;                         // 16-byte loads of a thread
constexpr int kPerBlock = kThreads * 4 * kBatch;  // tokens
constexpr uint32_t kInPrompt = 1u << 31;

__device__ bool HasSlot(const SeenTable& seen, int64_t slot) { return slot >= 0 && slot < seen.slots; }

// Unsigned, so that the bit of the prompt stays as it is.
__device__ void Count(int32_t* row, int64_t vocab, int32_t id) {
  if (id >= 0 && id < vocab) atomicAdd(reinterpret_cast<unsigned*>(row) + id, 1u);
}

__global__ void Enter(int32_t* row, int64_t vocab, const int32_t* prompt_ids, int64_t prompt_tokens,
                      const int32_t* output_ids, int64_t output_tokens) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i < prompt_tokens) {
    const int32_t id = prompt_ids[i];
    if (id >= 0 && id < vocab) atomicOr(reinterpret_cast<unsigned*>(row) + id, kInPrompt);
  } else if (i < prompt_tokens + output_tokens) {
    Count(row, vocab, output_ids[i - prompt_tokens]);
  }
}

__global__ void CountEach(SeenTable seen, const int32_t* slots, const int32_t* tokens,
                          const int32_t* token_rows, int64_t rows) {
  const int64_t r = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (r >= rows) return;
  const int64_t slot = slots[r];
  if (HasSlot(seen, slot)) Count(seen.data + slot * seen.stride, seen.vocab, tokens[token_rows[r]]);
}

// Bans every token of [begin, end) that is not among ids, by a bit for each. All threads of the block.
__device__ void AllowOnly(float* logits, const int32_t* ids, int count, int begin, int end) {
  __shared__ uint32_t allowed[kPerBlock / 32];
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < kPerBlock / 32; i += kThreads) allowed[i] = 0;
  __syncthreads();
  for (int i = thread; i < count; i += kThreads) {
    const int at = ids[i] - begin;
    if (at >= 0 && at < end - begin) atomicOr(&allowed[at / 32], 1u << (at % 32));
  }
  __syncthreads();
  for (int i = begin + thread; i < end; i += kThreads) {
    const int at = i - begin;
    if ((allowed[at / 32] >> (at % 32) & 1u) == 0 && !isnan(logits[i])) logits[i] = -INFINITY;
  }
}

// Block x of row y owns kPerBlock tokens, their biases too. Few tokens have been seen, so the logits of the
// others are not even read. Every operation has its own rounding, as on the CPU.
template <bool kWide>
__global__ void __launch_bounds__(kThreads) Penalize(PenaltyArgs a) {
  const int64_t r = blockIdx.y, slot = a.slots[r];
  const float repetition = a.repetition[r], presence = a.presence[r], frequency = a.frequency[r];
  const int bias_begin = a.bias_offsets[r], bias_end = a.bias_offsets[r + 1];
  const bool penalized =
      HasSlot(a.seen, slot) && (repetition != 1.0f || presence != 0.0f || frequency != 0.0f);
  const bool biased = bias_begin < bias_end;
  const int ban_begin = a.ban_offsets == nullptr ? 0 : a.ban_offsets[r],
            ban_end = a.ban_offsets == nullptr ? 0 : a.ban_offsets[r + 1];
  const bool banned = ban_begin < ban_end;
  const int allow_begin = a.allow_offsets == nullptr ? 0 : a.allow_offsets[r],
            allow_end = a.allow_offsets == nullptr ? 0 : a.allow_offsets[r + 1];
  const bool restricted = allow_begin < allow_end;
  if (!penalized && !biased && !banned && !restricted) return;
  float* logits = a.logits + r * a.logits_stride;
  const int vocab = static_cast<int>(a.seen.vocab);
  const int begin = static_cast<int>(blockIdx.x) * kPerBlock, end = min(begin + kPerBlock, vocab);
  const int thread = static_cast<int>(threadIdx.x);
  if (penalized) {
    const int32_t* seen = a.seen.data + slot * a.seen.stride;
    const auto penalize = [&](int i, int32_t bits) {
      if (bits == 0) return;
      float x = logits[i];
      x = x > 0.0f ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
      const int count = static_cast<int>(static_cast<uint32_t>(bits) & ~kInPrompt);
      if (count > 0) {
        x = __fsub_rn(x, __fadd_rn(__fmul_rn(static_cast<float>(count), frequency), presence));
      }
      logits[i] = x;
    };
    if constexpr (kWide) {
      int4 bits[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int i = begin + 4 * (j * kThreads + thread);
        bits[j] = i + 4 <= end ? *reinterpret_cast<const int4*>(seen + i) : int4{0, 0, 0, 0};
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int i = begin + 4 * (j * kThreads + thread);
        penalize(i, bits[j].x);
        penalize(i + 1, bits[j].y);
        penalize(i + 2, bits[j].z);
        penalize(i + 3, bits[j].w);
      }
      const int tail = (end & ~3) + thread;  // the last block's, when the vocabulary is no multiple of 4
      if (tail < end) penalize(tail, seen[tail]);
    } else {
      for (int i = begin + thread; i < end; i += kThreads) penalize(i, seen[i]);
    }
  }
  if (biased) {
    __syncthreads();  // a bias goes on top of the penalty
    for (int i = bias_begin + thread; i < bias_end; i += kThreads) {
      const int id = a.bias_ids[i];
      if (id < begin || id >= end) continue;
      const float bias = a.bias_values[i], x = logits[id];
      const bool forbids = bias == -INFINITY && !isnan(x);
      logits[id] = forbids ? -INFINITY : __fadd_rn(x, bias);
    }
  }
  if (banned) {
    __syncthreads();  // and a ban on top of everything; two of one token write the same
    const int last = a.tokens[a.token_rows[r]];
    for (int i = ban_begin + thread; i < ban_end; i += kThreads) {
      const int id = a.ban_ids[i], after = a.ban_after[i];
      if (id < begin || id >= end || (after >= 0 && after != last)) continue;
      if (!isnan(logits[id])) logits[id] = -INFINITY;
    }
  }
  // Its barriers stand between these writes and the others.
  if (restricted) AllowOnly(logits, a.allow_ids + allow_begin, allow_end - allow_begin, begin, end);
}

unsigned Blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace

void ClearSeen(const SeenTable& seen, int64_t slot, void* stream) {
  int32_t* row = seen.data + slot * seen.stride;
  FD_CUDA_CHECK(cudaMemsetAsync(row, 0, static_cast<size_t>(seen.vocab) * sizeof(int32_t), AsStream(stream)));
}

void EnterSeen(const SeenTable& seen, int64_t slot, const int32_t* prompt_ids, int64_t prompt_tokens,
               const int32_t* output_ids, int64_t output_tokens, void* stream) {
  const int64_t tokens = prompt_tokens + output_tokens;
  if (tokens == 0) return;
  int32_t* row = seen.data + slot * seen.stride;
  Enter<<<Blocks(tokens, kThreads), kThreads, 0, AsStream(stream)>>>(
      row, seen.vocab, prompt_ids, prompt_tokens, output_ids, output_tokens);
  FD_CUDA_CHECK(cudaGetLastError());
}

void CountTokens(const SeenTable& seen, const int32_t* slots, const int32_t* tokens,
                 const int32_t* token_rows, int64_t rows, void* stream) {
  if (rows == 0) return;
  CountEach<<<Blocks(rows, kThreads), kThreads, 0, AsStream(stream)>>>(seen, slots, tokens, token_rows, rows);
  FD_CUDA_CHECK(cudaGetLastError());
}

void ApplyPenalties(const PenaltyArgs& a, void* stream) {
  if (a.rows == 0 || a.seen.vocab == 0) return;
  FD_CHECK(a.rows <= 65535, a.rows, " rows");
  FD_CHECK(a.seen.vocab <= INT32_MAX - kPerBlock, a.seen.vocab, " tokens");
  const dim3 grid(Blocks(a.seen.vocab, kPerBlock), static_cast<unsigned>(a.rows));
  if (Aligned16<int32_t>(a.seen.data, a.seen.stride)) {
    Penalize<true><<<grid, kThreads, 0, AsStream(stream)>>>(a);
  } else {
    Penalize<false><<<grid, kThreads, 0, AsStream(stream)>>>(a);
  }
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
