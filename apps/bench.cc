// fastdeploy bench: prefill and decode through the engine with random token ids, beside what the device can
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
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/roofline.h"
#include "device_flag.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "step_work.h"

namespace fd {
namespace {

struct BenchFlags {
  // Keeping pages for later prompts is no part of what is measured.
  ModelFlags model{.prefix_caching = false};
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

// What the device can do at most, measured before the model is loaded.
struct Limits {
  double read_bytes_per_s = 0;
  double bf16_flop_per_s = 0;
  double int8_op_per_s = 0;  // of products with quantised weights
};

struct Floor {
  double seconds = 0;
  const char* limit = "";  // which of the two binds
};
Floor FloorOf(const StepWork& work, const Limits& limits) {
  const double bytes = work.bytes / limits.read_bytes_per_s,
               flop = work.flop / limits.bf16_flop_per_s +
                      (work.int8_flop > 0 ? work.int8_flop / limits.int8_op_per_s : 0);
  return bytes > flop ? Floor{bytes, "bandwidth"} : Floor{flop, "arithmetic"};
}

// One request's times, filled in by the engine thread.
struct Timing {
  std::mutex mutex;
  Clock::time_point submitted;
  std::vector<Clock::time_point> tokens;  // when each came
  Status error;
  std::promise<void> done;
};

class Runner {
 public:
  explicit Runner(Engine& engine) : engine_(engine) {}

  struct Times {
    double first_s = 0;  // from submission to the last request's first token
    // While all decode together: from the last request's first token to the end of the first that ends.
    double together_s = 0;
    int64_t together_steps = 0;
    double together_context = 0;  // tokens behind a new one, on average
  };
  // `batch` equal requests at once: prompt_tokens random ids, output_tokens drawn.
  StatusOr<Times> Run(int64_t batch, int64_t prompt_tokens, int64_t output_tokens) {
    std::vector<std::shared_ptr<Timing>> timings;
    std::vector<GenerateRequest> requests;
    for (int64_t i = 0; i < batch; ++i) {
      auto timing = std::make_shared<Timing>();
      timing->tokens.reserve(static_cast<size_t>(output_tokens));
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
        timing->tokens.insert(timing->tokens.end(), event.token_ids.size(), Clock::now());
        if (!event.finish_reason) return;
        if (*event.finish_reason == FinishReason::kError) timing->error = event.error;
        timing->done.set_value();
      };
      timings.push_back(timing);
      requests.push_back(std::move(request));
    }
    for (size_t i = 0; i < requests.size(); ++i) {
      timings[i]->submitted = Clock::now();
      FD_RETURN_IF_ERROR(engine_.Submit(std::move(requests[i])));
    }
    Clock::time_point begin = Clock::time_point::max(), last = Clock::time_point::max();
    const Timing* latest = nullptr;  // the last to begin
    for (const auto& timing : timings) {
      timing->done.get_future().wait();
      std::lock_guard<std::mutex> lock(timing->mutex);
      FD_RETURN_IF_ERROR(timing->error);
      FD_CHECK(!timing->tokens.empty(), "a request ended without a token");
      begin = std::min(begin, timing->submitted);
      last = std::min(last, timing->tokens.back());
      if (latest == nullptr || timing->tokens.front() > latest->tokens.front()) latest = timing.get();
    }
    Times times;
    const Clock::time_point first = latest->tokens.front();
    times.first_s = std::chrono::duration<double>(first - begin).count();
    // Steps are counted on one sequence: within a step the others get their tokens a little earlier or later.
    Clock::time_point end = first;
    for (const Clock::time_point token : latest->tokens) {
      if (token <= first || token > last) continue;
      end = token;
      ++times.together_steps;
    }
    times.together_s = std::chrono::duration<double>(end - first).count();
    double tokens = 0;
    for (const auto& timing : timings) {
      for (size_t i = 0; i < timing->tokens.size(); ++i) {
        if (timing->tokens[i] <= first || timing->tokens[i] > end) continue;
        tokens += 1;
        times.together_context += static_cast<double>(prompt_tokens) + static_cast<double>(i) - 1;
      }
    }
    if (tokens > 0) times.together_context /= tokens;
    return times;
  }

 private:
  Engine& engine_;
  RequestId last_id_ = 0;
  uint64_t state_ = 1;
};

// ttft_s: from a request's submission to its first token, idle_share: of the device's time from one decode
// step to the end of the next, what lies between them; where these were measured.
void Report(const BenchFlags& flags, const std::string& test, double tokens, double seconds,
            const Floor& floor, std::optional<double> ttft_s, std::optional<double> idle_share = {}) {
  if (flags.json) {
    JsonObject line{{"test", test},         {"tokens_per_second", tokens / seconds},
                    {"seconds", seconds},   {"floor_seconds", floor.seconds},
                    {"floor", floor.limit}, {"share_of_roofline", floor.seconds / seconds}};
    if (ttft_s) line.Set("ttft_seconds", *ttft_s);
    if (idle_share) line.Set("device_idle_share", *idle_share);
    std::puts(WriteJson(line).c_str());
  } else {
    std::printf("%-20s %10.1f tok/s  %9.2f ms  floor %9.2f ms (%s)  %3.0f %% of the roofline", test.c_str(),
                tokens / seconds, seconds * 1e3, floor.seconds * 1e3, floor.limit,
                100 * floor.seconds / seconds);
    if (ttft_s) std::printf("  TTFT %.2f ms", *ttft_s * 1e3);
    if (idle_share) std::printf("  device idle between steps %.2f %%", 100 * *idle_share);
    std::puts("");
  }
  std::fflush(stdout);
}

// Prompts of a batch are computed one after another, a step's budget at a time, and those that are done
// decode meanwhile: so many more tokens until the last has begun.
int64_t TokensBeforeAllDecode(int64_t batch, int64_t prompt_tokens, int64_t step_tokens) {
  const int64_t room = std::max<int64_t>(step_tokens - batch, 1);
  return (batch * prompt_tokens + room - 1) / room;
}

Status MeasurePrefill(const BenchFlags& flags, Runner& runner, const ModelConfig& config,
                      double kv_token_bytes, const Limits& limits, int64_t depth, int64_t n) {
  double best = 1e30, below = depth > 0 ? 1e30 : 0.0;
  for (int64_t i = 0; i < flags.repeat; ++i) {
    FD_ASSIGN_OR_RETURN(Runner::Times times, runner.Run(1, depth + n, 1));
    best = std::min(best, times.first_s);
    if (depth == 0) continue;
    FD_ASSIGN_OR_RETURN(times, runner.Run(1, depth, 1));
    below = std::min(below, times.first_s);
  }
  const std::string test = StrCat("pp", n, depth > 0 ? StrCat("@d", depth) : std::string());
  if (best <= below) {
    LogWarning(test, ": ", depth + n, " tokens took no longer than ", depth,
               " alone, so the difference is noise; try a larger --repeat");
    return OkStatus();
  }
  const StepWork work =
      WorkOfStep(config, kv_token_bytes, 1, n, static_cast<double>(depth), flags.model.quantization);
  Report(flags, test, static_cast<double>(n), best - below, FloorOf(work, limits), best);
  return OkStatus();
}

Status MeasureDecode(const BenchFlags& flags, Engine& engine, Runner& runner, double kv_token_bytes,
                     const Limits& limits, int64_t depth, int64_t batch) {
  const int64_t prompt = std::max<int64_t>(depth, 1);
  const int64_t drawn =
      flags.output_tokens + 1 + TokensBeforeAllDecode(batch, prompt, engine.options().max_num_batched_tokens);
  const int64_t pages = batch * PagesForTokens(prompt + drawn);
  if (pages > engine.options().num_kv_pages) {
    return InvalidArgument(
        StrCat("--batch ", batch, " at --depth ", depth, " needs ", pages, " key/value pages for ",
               prompt + drawn, " tokens each, but there are ", engine.options().num_kv_pages,
               ": lower --batch, --depth or --output-tokens"),
        "--batch");
  }
  double best = 1e30, context = 0;  // best: seconds of a step
  const EngineStats before = engine.Stats();
  for (int64_t i = 0; i < flags.repeat; ++i) {
    FD_ASSIGN_OR_RETURN(Runner::Times times, runner.Run(batch, prompt, drawn));
    if (times.together_steps == 0) {
      return InvalidArgument(
          StrCat("--output-tokens ", flags.output_tokens, " are too few: the first of ", batch,
                 " sequences ended before the last began; for example --output-tokens 128"),
          "--output-tokens");
    }
    const double step = times.together_s / static_cast<double>(times.together_steps);
    if (step > best) continue;
    best = step;
    context = times.together_context;
  }
  Floor floor = FloorOf(
      WorkOfStep(engine.config(), kv_token_bytes, batch, 1, context, flags.model.quantization), limits);
  const double steps = static_cast<double>(flags.output_tokens);
  floor.seconds *= steps;
  const EngineStats after = engine.Stats();
  const double busy = after.decode_ms - before.decode_ms, idle = after.decode_idle_ms - before.decode_idle_ms;
  std::optional<double> idle_share;
  if (busy > 0) idle_share = idle / (busy + idle);
  Report(flags,
         StrCat("tg", flags.output_tokens, depth > 0 ? StrCat("@d", depth) : std::string(),
                batch > 1 ? StrCat("@b", batch) : std::string()),
         static_cast<double>(batch) * steps, best * steps, floor, std::nullopt, idle_share);
  return OkStatus();
}

Status Measure(const BenchFlags& flags, Engine& engine, double kv_token_bytes, const Limits& limits) {
  Runner runner(engine);
  FD_RETURN_IF_ERROR(runner.Run(1, 64, 8).status());  // first touch of buffers and caches
  for (int64_t depth : flags.depths) {
    for (int64_t n : flags.prompt_tokens) {
      FD_RETURN_IF_ERROR(MeasurePrefill(flags, runner, engine.config(), kv_token_bytes, limits, depth, n));
    }
    if (flags.output_tokens == 0) continue;
    for (int64_t batch : flags.batches) {
      FD_RETURN_IF_ERROR(MeasureDecode(flags, engine, runner, kv_token_bytes, limits, depth, batch));
    }
  }
  return OkStatus();
}

Limits MeasureCpu(const BenchFlags& flags) {
  ThreadPool threads(ApplyCpuFlags(flags.model.cpu, true));
  const cpu::Roofline roofline = cpu::MeasureRoofline(threads);
  if (flags.json) {
    std::puts(WriteJson(JsonObject{{"isa", cpu::IsaName(cpu::CurrentIsa())},
                                   {"read_bytes_per_second", roofline.read_bytes_per_s},
                                   {"bf16_flop_per_second", roofline.bf16_flop_per_s},
                                   {"fp32_flop_per_second", roofline.fp32_flop_per_s},
                                   {"int8_op_per_second", roofline.int8_op_per_s}})
                  .c_str());
  } else {
    std::printf("%s: read %.1f GB/s, bf16 dot %.0f GFLOP/s, fp32 FMA %.0f GFLOP/s, int8 dot %.0f GOP/s\n",
                cpu::IsaName(cpu::CurrentIsa()), roofline.read_bytes_per_s / 1e9,
                roofline.bf16_flop_per_s / 1e9, roofline.fp32_flop_per_s / 1e9, roofline.int8_op_per_s / 1e9);
  }
  return {roofline.read_bytes_per_s, roofline.bf16_flop_per_s, roofline.int8_op_per_s};
}

StatusOr<Limits> MeasureCuda(const BenchFlags& flags, Device device) {
  const std::shared_ptr<void> stream(cuda::CreateStream(device.index), cuda::DestroyStream);
  cuda::Roofline roofline;
  if (!cuda::MeasureRoofline(device.index, stream.get(), &roofline)) {
    return Unavailable(StrCat("--device ", flags.model.device, ": ",
                              HumanBytes(static_cast<double>(cuda::GetDeviceInfo(device.index).free_bytes)),
                              " are free on ", DescribeDevice(device),
                              ", but its limits are measured with 512 MiB; stop what else uses it "
                              "(nvidia-smi lists it)"));
  }
  if (flags.json) {
    std::puts(WriteJson(JsonObject{{"device", DescribeDevice(device)},
                                   {"read_bytes_per_second", roofline.read_bytes_per_s},
                                   {"copy_bytes_per_second", roofline.copy_bytes_per_s},
                                   {"bf16_flop_per_second", roofline.bf16_flop_per_s}})
                  .c_str());
  } else {
    std::printf("%s: read %.2f TB/s, copy %.2f TB/s (read + written), bf16 product 8192^3 %.0f TFLOP/s\n",
                DescribeDevice(device).c_str(), roofline.read_bytes_per_s / 1e12,
                roofline.copy_bytes_per_s / 1e12, roofline.bf16_flop_per_s / 1e12);
  }
  // Quantised weights meet bfloat16 rows.
  return Limits{roofline.read_bytes_per_s, roofline.bf16_flop_per_s, roofline.bf16_flop_per_s};
}

}  // namespace

int RunBench(const std::vector<std::string>& args) {
  BenchFlags bench;
  bench.model.max_num_batched_tokens = 0;  // by the device
  FlagSet flags("fastdeploy bench [MODEL] [FLAGS]",
                "Measures prefill (ppN: N prompt tokens to the first token) and decode (tgN: N tokens after "
                "it) through the "
                "engine, with the floor that the device's measured bandwidth and bf16 and int8 peaks set.");
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
  flags.Integer("max-num-batched-tokens", &bench.model.max_num_batched_tokens, {1, 1 << 20, 8192},
                "Tokens of one step: a longer prefill takes several", "2048, on a GPU 8192");
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
  StatusOr<Device> device = ParseDevice(bench.model.device);
  if (!device.ok()) return UsageError("bench", device.status());
  const bool on_cpu = device->type == DeviceType::kCpu;
  if (bench.model.max_num_batched_tokens == 0) bench.model.max_num_batched_tokens = on_cpu ? 2048 : 8192;
  bench.model.max_num_seqs = largest(bench.batches);
  if (bench.model.max_model_len == 0) {
    const int64_t decode = bench.output_tokens + 2 +
                           TokensBeforeAllDecode(bench.model.max_num_seqs, std::max<int64_t>(depth, 1),
                                                 bench.model.max_num_batched_tokens);
    bench.model.max_model_len =
        std::max<int64_t>(depth + std::max(largest(bench.prompt_tokens) + 2, decode), 128);
  }

  StatusOr<Limits> limits = Limits{};
  if (on_cpu) {
    limits = MeasureCpu(bench);
  } else {
    limits = MeasureCuda(bench, *device);
  }
  if (!limits.ok()) return Failure("bench", limits.status());
  SetLogLevel(LogLevel::kWarning);
  ProgressBar progress("loading");
  StatusOr<std::unique_ptr<LoadedModel>> loaded =
      LoadEngine(bench.model, [&](int64_t done, int64_t total) { progress.Update(done, total); });
  progress.Finish();
  if (!loaded.ok()) return Failure("bench", loaded.status());
  bench.model.quantization = (*loaded)->quantization;  // also where a packed checkpoint says it
  const double kv_token_bytes =
      static_cast<double>((*loaded)->memory.needs.page_bytes) / static_cast<double>(kKvPageTokens);
  bench.model.quantization = (*loaded)->quantization;
  const Status status = Measure(bench, *(*loaded)->engine, kv_token_bytes, *limits);
  if (status.ok()) return kExitOk;
  Failure("bench", status);
  return (*loaded)->engine->DeviceStatus().ok() ? kExitFailure : kExitDeviceLost;
}

}  // namespace fd
