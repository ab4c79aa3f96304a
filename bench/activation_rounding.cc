// What rounding activations moves: log-probabilities of the next token in bfloat16, where the CPU rounds the
// rows of quantised layers to int8, against those in float32, where it leaves rows as they are, over the same
// quantised weights. Without quantisation the same pair shows what bfloat16 alone moves.
//   build/release/bench/activation_rounding CHECKPOINT [QUANTIZATION ...]    (none, wint8, wint4, JSON)
// Four sequences of 64, 128, 192 and 256 ids, x -> 1664525 x + 1013904223 modulo 2^32 from x = 1, 2, 3, 4; an
// id is x / 256 modulo the vocabulary. All positions and all ids of the vocabulary count.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "compute/ops/attention.h"
#include "model/model.h"
#include "model/weights/quantization_config.h"

namespace fd {
namespace {

std::vector<int32_t> RandomIds(int64_t count, uint32_t x, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    x = x * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((x >> 8) % static_cast<uint32_t>(vocab)));
  }
  return ids;
}

TensorView Ints(std::vector<int32_t>& v) {
  return TensorView(v.data(), DType::kInt32, Device{}, {static_cast<int64_t>(v.size())});
}

struct Side {
  std::unique_ptr<Model> model;
  KvStorage kv;
};

StatusOr<Side> Open(const ops::Context& ctx, const std::string& dir, const Quantization& quantization,
                    DType dtype, int64_t pages) {
  Side side;
  LoadOptions options;
  options.quantization = quantization;
  options.dtype = dtype;
  FD_ASSIGN_OR_RETURN(side.model, LoadModel(ctx, dir, options));
  side.kv = MakeKvStorage(side.model->config(), dtype, ctx, pages);
  return side;
}

// Logits of all positions [n, vocab] of one sequence.
Tensor Logits(const ops::Context& ctx, Side& side, std::vector<int32_t> ids) {
  const int32_t n = static_cast<int32_t>(ids.size());
  std::vector<int32_t> rows, positions, pages, offsets = {0, n}, context = {n};
  for (int32_t i = 0; i < n; ++i) rows.push_back(i);
  for (int axis = 0; axis < 3; ++axis) positions.insert(positions.end(), rows.begin(), rows.end());
  for (int32_t i = 0; i * ops::kPageTokens < n; ++i) pages.push_back(i);
  std::vector<int32_t> table_offsets = {0, static_cast<int32_t>(pages.size())};
  ForwardBatch batch;
  batch.num_tokens = n;
  batch.token_ids = Ints(ids);
  batch.positions = Ints(positions).Reshape({3, n});
  batch.attention.query_offsets = Ints(offsets);
  batch.attention.context_tokens = Ints(context);
  batch.attention.table_offsets = Ints(table_offsets);
  batch.attention.block_tables = Ints(pages);
  batch.attention.slots = Ints(rows);  // page i holds tokens [i * kPageTokens, ...)
  batch.attention.max_query_tokens = batch.attention.max_context_tokens = n;
  batch.logits_rows = Ints(rows);
  Tensor logits(DType::kFloat32, Device{}, {n, side.model->config().vocab_size});
  side.model->Forward(ctx, logits, batch, side.kv);
  return logits;
}

struct Distance {
  double squares = 0, largest = 0, divergence = 0;
  int64_t values = 0, rows = 0, other_argmax = 0;
};

double LogOfSum(const float* logits, int64_t n) {
  const double most = *std::max_element(logits, logits + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(logits[i] - most);
  return most + std::log(sum);
}

void Add(Distance& d, const TensorView& exact, const TensorView& rounded) {
  const int64_t vocab = exact.dim(1);
  for (int64_t r = 0; r < exact.dim(0); ++r) {
    const float *a = exact.As<float>() + r * vocab, *b = rounded.As<float>() + r * vocab;
    const double log_a = LogOfSum(a, vocab), log_b = LogOfSum(b, vocab);
    for (int64_t i = 0; i < vocab; ++i) {
      const double moved = (b[i] - log_b) - (a[i] - log_a);
      d.squares += moved * moved;
      d.largest = std::max(d.largest, std::abs(moved));
      d.divergence -= std::exp(a[i] - log_a) * moved;
    }
    d.values += vocab;
    d.rows += 1;
    d.other_argmax += std::max_element(a, a + vocab) - a != std::max_element(b, b + vocab) - b;
  }
}

Status Measure(const std::string& dir, const std::string& kind) {
  ThreadPool threads(2);
  Workspace workspace(Device{}, 1 << 20);
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  FD_ASSIGN_OR_RETURN(const Quantization quantization, ParseQuantization(kind));
  const int64_t lengths[] = {64, 128, 192, 256}, pages = 256 / ops::kPageTokens;
  FD_ASSIGN_OR_RETURN(Side exact, Open(ctx, dir, quantization, DType::kFloat32, pages));
  FD_ASSIGN_OR_RETURN(Side rounded, Open(ctx, dir, quantization, DType::kBFloat16, pages));
  const int64_t vocab = exact.model->config().vocab_size;
  Distance d;
  uint32_t seed = 1;
  for (int64_t length : lengths) {
    const std::vector<int32_t> ids = RandomIds(length, seed++, vocab);
    const Tensor a = Logits(ctx, exact, ids), b = Logits(ctx, rounded, ids);
    Add(d, a, b);
  }
  std::printf(
      "%s: log-probabilities rms %.5f, largest %.4f; mean divergence %.3e; another argmax in %ld of %ld "
      "rows\n",
      kind.c_str(), std::sqrt(d.squares / static_cast<double>(d.values)), d.largest,
      d.divergence / static_cast<double>(d.rows), static_cast<long>(d.other_argmax),
      static_cast<long>(d.rows));
  std::fflush(stdout);
  return OkStatus();
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CHECKPOINT [none|wint8|wint4|JSON ...]\n", argv[0]);
    return 2;
  }
  std::vector<std::string> kinds(argv + 2, argv + argc);
  if (kinds.empty()) kinds = {"none", "wint8", "wint4", R"({"quantization": "wint4", "group_size": 128})"};
  for (const std::string& kind : kinds) {
    const fd::Status status = fd::Measure(argv[1], kind);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.message().c_str());
      return 1;
    }
  }
  return 0;
}
