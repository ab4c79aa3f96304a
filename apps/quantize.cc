// fastdeploy quantize: a checkpoint with its linear weights packed, quantised or as stored, written once.
#include <csignal>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "base/thread_pool.h"
#include "command.h"
#include "compute/ops/context.h"
#include "flag_set.h"
#include "model/model.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "stop_signal.h"

namespace fd {
namespace {

int Pack(const std::string& model_dir, const std::string& output, int64_t threads,
         const Quantization& quantization) {
  StopSignal stop;
  stop.Arm();
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is then an error of the write
  ThreadPool pool(static_cast<int>(threads));
  ops::Context ctx;
  ctx.threads = &pool;
  ProgressBar bar(quantization == Quantization{} ? "packing" : "quantizing");
  PackOptions options;
  options.quantization = quantization;
  options.progress = [&bar](int64_t done, int64_t total) { bar.Update(done, total); };
  options.stopped = [&stop] { return stop.requested(); };
  const Status status = PackModel(ctx, model_dir, output, options);
  bar.Finish();
  if (status.ok()) {
    LogInfo(output, ": ", PackedName(quantization), " of ", model_dir);
    return kExitOk;
  }
  Failure("quantize", status);
  return stop.requested() ? kExitInterrupted : kExitFailure;
}

}  // namespace

int RunQuantize(const std::vector<std::string>& args) {
  std::string model_dir, output;
  Quantization quantization;
  bool given = false;
  int64_t threads = 0;
  FlagSet flags(
      "fastdeploy quantize MODEL OUTPUT --quantization KIND [FLAGS]",
      "Writes a checkpoint with its linear layers' weights packed for the kernels, quantised or as they are. "
      "It loads at the disk's speed, without --quantization; on a CPU servers share its pages.");
  flags.Group("Model");
  flags.Text("model", &model_dir, "The checkpoint's folder, bfloat16 or float32; also the first word", "DIR");
  flags.Text("output", &output, "The folder to make, whole or not at all; also the next word", "DIR");
  AddQuantizationFlags(
      flags, &quantization,
      "wint8, wint4 (of a MoE model the experts, the rest wint8), JSON with a group_size, or none: bfloat16 "
      "weights as they are, for a start without packing on a CPU",
      "The head's weights too, also without --quantization; wint4: in groups of 32 inputs; such a folder is "
      "for the CPU",
      &given);
  flags.Integer("threads", &threads, {0, 1024, 2}, "Threads that compute",
                "one a core, within the cgroup's quota");
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("quantize", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&model_dir, &words); !status.ok()) return UsageError("quantize", status);
  if (output.empty() && !words.empty()) {
    output = words.front();
    words.erase(words.begin());
  }
  if (output.empty()) {
    return UsageError("quantize",
                      InvalidArgument("which folder is to be made? Give it after the model or with --output, "
                                      "for example --output models/ernie-4.5-vl-tiny-wint8"));
  }
  if (!words.empty())
    return UsageError("quantize", InvalidArgument(StrCat("unexpected word '", words[0], "'")));
  if (!given) {
    return UsageError("quantize", InvalidArgument("--quantization says what to write, for example "
                                                  "--quantization wint8, --quantization wint4 or "
                                                  "--quantization none"));
  }
  if (Status status = CheckModelFolder(model_dir); !status.ok()) return Failure("quantize", status);
  return Pack(model_dir, output, threads, quantization);
}

}  // namespace fd
