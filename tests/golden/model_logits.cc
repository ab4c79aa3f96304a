// For prequantized_test.py: model_logits DIR QUANTIZATION TOKENS writes the float32 logits of so many tokens,
// each alone in its sequence.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/thread_pool.h"
#include "model/model.h"
#include "model/weights/quantization_config.h"

namespace fd {
namespace {

TensorView Ints(int32_t* p, Shape shape) { return TensorView(p, DType::kInt32, Device{}, shape); }

Status Main(const std::string& model_dir, const std::string& quantization, int32_t tokens) {
  ThreadPool threads{2};
  Workspace workspace{Device{}, 1 << 20};
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  LoadOptions options;
  FD_ASSIGN_OR_RETURN(options.quantization, ParseQuantization(quantization));
  FD_ASSIGN_OR_RETURN(const std::unique_ptr<Model> model, LoadModel(ctx, model_dir, options));
  KvStorage kv = MakeKvStorage(model->config(), model->dtype(), ops::Context{}, 1);
  Tensor logits(DType::kFloat32, Device{}, {1, model->config().vocab_size});
  for (int32_t id = 0; id < tokens; ++id) {
    int32_t token = id, zero = 0, position[3] = {0, 0, 0}, offsets[2] = {0, 1}, context = 1;
    ForwardBatch batch;
    batch.num_tokens = 1;
    batch.token_ids = Ints(&token, {1});
    batch.positions = Ints(position, {3, 1});
    batch.attention = {Ints(offsets, {2}),
                       Ints(&context, {1}),
                       Ints(offsets, {2}),
                       Ints(&zero, {1}),
                       Ints(&zero, {1}),
                       1,
                       1};
    batch.logits_rows = Ints(&zero, {1});
    model->Forward(ctx, logits, batch, kv);
    std::fwrite(logits.view().data, 1, static_cast<size_t>(logits.size_bytes()), stdout);
  }
  return OkStatus();
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const fd::Status status = fd::Main(argv[1], argv[2], std::atoi(argv[3]));
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  return 1;
}
