// fastdeploy bench: prefill and decode through the engine with random token ids, beside what the machine can
// do at most.
#include <algorithm>
#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "command.h"
#include "compute/kernels/cpu/isa.h"
#include "compute/kernels/cpu/roofline.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "model_flags.h"
#include "progress_bar.h"

namespace fd {
namespace {

struct BenchFlags {
  ModelFlags model;
  std::vector<int64_t> prompt_tokens = {512};
  int64_t output_tokens = 128;
  std::vector<int64_t> depths = {0};
  std::vector<int64_t> batches = {1};
  int64_t repeat = 3;
  bool json = false;
};

StatusOr<std::vector<int64_t>> ParseNumbers(const std::string& text, int64_t min, int64_t max) {
  std::vector<int64_t> numbers;
  for (const std::string& part : Split(text, ',')) {
    int64_t n = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), n);
    if (error != std::errc() || end != part.data() + part.size() || n < min || n > max) {
      return InvalidArgument(
          StrCat("'", part, "' is not a number from ", min, " to ", max, "; for example 128,512"));
    }
    numbers.push_back(n);
  }
  return numbers;
}

// What one step has to read and to compute at least: every weight that takes part once, the context's keys
// and values, and the multiply-adds of the linear layers and of attention.
struct Work {
  double bytes = 0;
  double flop = 0;
};
Work StepWork(const ModelConfig& c, int64_t page_bytes, int64_t sequences, int64_t new_tokens,
              int64_t context) {
  const double h = static_cast<double>(c.hidden_size);
  const double q = static_cast<double>(c.num_heads * c.head_dim),
               kv = static_cast<double>(c.num_kv_heads * c.head_dim);
  const double tokens = static_cast<double>(sequences * new_tokens);
  double read = 0, used = 0;  // weights read in the step; weights that one token uses
  for (int64_t layer = 0; layer < c.num_layers; ++layer) {
    const double attention = h * (q + 2 * kv) + q * h;
    double mlp = 3 * h * static_cast<double>(c.intermediate_size), mlp_used = mlp;
    if (c.moe && c.layer_is_sparse[layer]) {
      const double expert = 3 * h * static_cast<double>(c.moe->intermediate_size);
      const double shared = expert * static_cast<double>(c.moe->num_shared_experts);
      const double chosen =
          std::min(static_cast<double>(c.moe->num_experts), tokens * static_cast<double>(c.moe->top_k));
      mlp = expert * chosen + shared;
      mlp_used = expert * static_cast<double>(c.moe->top_k) + shared;
    }
    read += attention + mlp;
    used += attention + mlp_used;
  }
  const double head = h * static_cast<double>(c.vocab_size);
  const double seen =
      static_cast<double>(context) + (static_cast<double>(new_tokens) - 1) / 2;  // mean over the new tokens
  Work work;
  work.bytes = 2 * (read + head) +
               static_cast<double>(sequences * (context + new_tokens)) * static_cast<double>(page_bytes) / 64;
  work.flop = 2 * tokens * used + 2 * static_cast<double>(sequences) * head +
              4 * tokens * seen * q * static_cast<double>(c.num_layers);
  return work;
}

double FloorSeconds(const Work& work, const cpu::Roofline& roofline) {
  return std::max(work.bytes / roofline.read_bytes_per_s, work.flop / roofline.bf16_flop_per_s);
}

// One request's times, filled in by the engine thread.
struct Timing {
  std::mutex mutex;
  Clock::time_point submitted, first, last;
  int64_t tokens = 0;
  Status error;
  std::promise<void> done;
};

class Runner {
 public:
  explicit Runner(Engine& engine) : engine_(engine) {}

  struct Times {
    double first_s = 0;  // from submission to the last request's first token
    double rest_s = 0;   // from there to the end of the first request that ends
    int64_t rest_tokens = 0;
  };
  // `batch` equal requests at once: prompt_tokens random ids, output_tokens drawn.
  StatusOr<Times> Run(int64_t batch, int64_t prompt_tokens, int64_t output_tokens) {
    std::vector<std::shared_ptr<Timing>> timings;
    for (int64_t i = 0; i < batch; ++i) {
      auto timing = std::make_shared<Timing>();
      GenerateRequest request;
      request.id = ++last_id_;
      for (int64_t t = 0; t < prompt_tokens; ++t) {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        request.token_ids.push_back(static_cast<int32_t>((state_ >> 33) % engine_.config().vocab_size));
      }
      request.sampling.temperature = 0;
      request.sampling.max_tokens = output_tokens;
      request.sampling.ignore_eos = true;
      request.sink = [timing](TokenEvent&& event) {
        std::lock_guard<std::mutex> lock(timing->mutex);
        timing->last = Clock::now();
        if (timing->tokens == 0) timing->first = timing->last;
        timing->tokens += static_cast<int64_t>(event.token_ids.size());
        if (!event.finish_reason) return;
        if (*event.finish_reason == FinishReason::kError) timing->error = event.error;
        timing->done.set_value();
      };
      timing->submitted = Clock::now();
      FD_RETURN_IF_ERROR(engine_.Submit(std::move(request)));
      timings.push_back(timing);
    }
    Clock::time_point begin = Clock::time_point::max(), first = Clock::time_point::min(),
                      last = Clock::time_point::max();
    for (const auto& timing : timings) {
      timing->done.get_future().wait();
      std::lock_guard<std::mutex> lock(timing->mutex);
      FD_RETURN_IF_ERROR(timing->error);
      begin = std::min(begin, timing->submitted);
      first = std::max(first, timing->first);
      last = std::min(last, timing->last);
    }
    Times times;
    times.first_s = std::chrono::duration<double>(first - begin).count();
    times.rest_s = std::chrono::duration<double>(last - first).count();
    times.rest_tokens = batch * (output_tokens - 1);
    return times;
  }

 private:
  Engine& engine_;
  RequestId last_id_ = 0;
  uint64_t state_ = 1;
};

void Report(const BenchFlags& flags, const std::string& test, double tokens, double seconds, double floor_s) {
  if (flags.json) {
    std::puts(WriteJson(JsonObject{{"test", test},
                                   {"tokens_per_second", tokens / seconds},
                                   {"seconds", seconds},
                                   {"floor_seconds", floor_s},
                                   {"share_of_roofline", floor_s / seconds}})
                  .c_str());
  } else {
    std::printf("%-20s %10.1f tok/s  %9.2f ms  floor %9.2f ms  %3.0f %% of the roofline\n", test.c_str(),
                tokens / seconds, seconds * 1e3, floor_s * 1e3, 100 * floor_s / seconds);
  }
  std::fflush(stdout);
}

Status Measure(const BenchFlags& flags, Engine& engine, int64_t page_bytes, const cpu::Roofline& roofline) {
  Runner runner(engine);
  FD_RETURN_IF_ERROR(runner.Run(1, 64, 8).status());  // first touch of buffers and caches
  for (int64_t depth : flags.depths) {
    const std::string at = depth > 0 ? StrCat("@d", depth) : std::string();
    for (int64_t n : flags.prompt_tokens) {
      double best = 1e30, below = depth > 0 ? 1e30 : 0.0;
      for (int64_t i = 0; i < flags.repeat; ++i) {
        FD_ASSIGN_OR_RETURN(Runner::Times times, runner.Run(1, depth + n, 1));
        best = std::min(best, times.first_s);
        if (depth == 0) continue;
        FD_ASSIGN_OR_RETURN(times, runner.Run(1, depth, 1));
        below = std::min(below, times.first_s);
      }
      const double seconds = std::max(best - below, 1e-9);
      Report(flags, StrCat("pp", n, at), static_cast<double>(n), seconds,
             FloorSeconds(StepWork(engine.config(), page_bytes, 1, n, depth), roofline));
    }
    if (flags.output_tokens == 0) continue;
    for (int64_t batch : flags.batches) {
      double best = 1e30;
      for (int64_t i = 0; i < flags.repeat; ++i) {
        FD_ASSIGN_OR_RETURN(Runner::Times times,
                            runner.Run(batch, std::max<int64_t>(depth, 1), flags.output_tokens + 1));
        best = std::min(best, times.rest_s);
      }
      const int64_t middle = std::max<int64_t>(depth, 1) + flags.output_tokens / 2;
      const double floor_s = FloorSeconds(StepWork(engine.config(), page_bytes, batch, 1, middle), roofline);
      Report(flags, StrCat("tg", flags.output_tokens, at, batch > 1 ? StrCat("@b", batch) : std::string()),
             static_cast<double>(batch * flags.output_tokens), best,
             floor_s * static_cast<double>(flags.output_tokens));
    }
  }
  return OkStatus();
}

}  // namespace

int RunBench(const std::vector<std::string>& args) {
  BenchFlags bench;
  FlagSet flags("fastdeploy bench [MODEL] [FLAGS]",
                "Measures prefill (ppN: N prompt tokens to the first token) and decode (tgN: N tokens after "
                "it) through the "
                "engine, with the floor that this machine's measured bandwidth and dot-product peak set.");
  AddModelFlags(flags, &bench.model, false);
  flags.Group("Measurement");
  const auto numbers = [&](const char* name, const char* help, const char* text, std::vector<int64_t>* to,
                           int64_t min) {
    flags.Custom(name, "N,N", help, text, [to, min](const std::string& value) -> Status {
      FD_ASSIGN_OR_RETURN(*to, ParseNumbers(value, min, 1 << 20));
      return OkStatus();
    });
  };
  numbers("prompt-tokens", "Lengths of prefills", "512", &bench.prompt_tokens, 1);
  numbers("depth", "Tokens already in the context", "0", &bench.depths, 0);
  numbers("batch", "Sequences that decode at once", "1", &bench.batches, 1);
  flags.Integer("output-tokens", &bench.output_tokens, {0, 1 << 20, 128}, "Tokens of a decode run; 0: none");
  flags.Integer("repeat", &bench.repeat, {1, 1000, 3}, "Runs of each; the best counts");
  flags.Switch("json", &bench.json, "One JSON object a line");
  StatusOr<bool> parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("bench", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status s = TakeModel(&bench.model.model_dir, &words); !s.ok()) return UsageError("bench", s);
  if (!words.empty()) return UsageError("bench", InvalidArgument(StrCat("what is '", words[0], "'?")));
  const auto largest = [](const std::vector<int64_t>& v) { return *std::max_element(v.begin(), v.end()); };
  const int64_t depth = largest(bench.depths);
  if (bench.model.max_model_len == 0)
    bench.model.max_model_len = depth + std::max(largest(bench.prompt_tokens), bench.output_tokens) + 2;
  bench.model.max_num_seqs = largest(bench.batches);
  bench.model.max_num_batched_tokens = 2048;

  // The floors below are the CPU's; bench/gpu has the GPU's kernels.
  if (bench.model.device != "auto" && bench.model.device != "cpu") {
    return UsageError("bench", Unimplemented(StrCat("--device ", bench.model.device,
                                                    ": bench measures the CPU; kernels on a GPU "
                                                    "are measured by build/cuda-core/bench/bench_gpu_*"),
                                             "--device"));
  }
  bench.model.device = "cpu";
  cpu::Roofline roofline;
  {
    ThreadPool threads(static_cast<int>(bench.model.threads));
    roofline = cpu::MeasureRoofline(threads);
  }
  if (bench.json) {
    std::puts(WriteJson(JsonObject{{"isa", cpu::IsaName(cpu::CurrentIsa())},
                                   {"read_bytes_per_second", roofline.read_bytes_per_s},
                                   {"bf16_flop_per_second", roofline.bf16_flop_per_s},
                                   {"fp32_flop_per_second", roofline.fp32_flop_per_s}})
                  .c_str());
  } else {
    std::printf("%s: read %.1f GB/s, bf16 dot %.0f GFLOP/s, fp32 FMA %.0f GFLOP/s\n",
                cpu::IsaName(cpu::CurrentIsa()), roofline.read_bytes_per_s / 1e9,
                roofline.bf16_flop_per_s / 1e9, roofline.fp32_flop_per_s / 1e9);
  }
  SetLogLevel(LogLevel::kWarning);
  ProgressBar progress("loading");
  StatusOr<std::unique_ptr<LoadedModel>> loaded =
      LoadEngine(bench.model, [&](int64_t done, int64_t total) { progress.Update(done, total); });
  progress.Finish();
  if (!loaded.ok()) return Failure("bench", loaded.status());
  const Status status = Measure(bench, *(*loaded)->engine, (*loaded)->memory.needs.page_bytes, roofline);
  return status.ok() ? kExitOk : Failure("bench", status);
}

}  // namespace fd
