#include "engine/first_steps.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "compute/ops/linear.h"

namespace fd {
namespace {

// The last tokens of a prompt of context tokens. ms: of the device where it says, else by the clock.
Status RunPrompt(Executor& executor, int64_t tokens, int64_t context, double& ms) {
  StepPlan plan;
  plan.step = -2;  // so that nothing takes it for the one before the first
  plan.sequences.emplace_back();
  SequenceStep& step = plan.sequences.back();
  step.token_ids.assign(static_cast<size_t>(tokens), 0);
  for (int axis = 0; axis < 3; ++axis) {
    for (int64_t n = context - tokens; n < context; ++n) step.positions.push_back(static_cast<int32_t>(n));
  }
  step.context_tokens = context;
  for (int64_t page = 0; page < PagesForTokens(context); ++page)
    step.block_table.push_back(static_cast<int32_t>(page));
  step.samples = true;
  step.sample_position = context;
  plan.num_tokens = tokens;
  plan.num_outputs = 1;
  const Clock::time_point begin = Clock::now();
  executor.Launch(plan);
  const StepResult result = executor.Wait();
  const double wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  ms = result.device_ms > 0 ? result.device_ms : wall_ms;
  return result.status;
}

// Twice and the quicker one, where a step takes no longer than again_ms.
Status Measure(Executor& executor, int64_t tokens, double again_ms, double& ms) {
  FD_RETURN_IF_ERROR(RunPrompt(executor, tokens, tokens, ms));
  if (ms > again_ms) return OkStatus();
  double second_ms = 0;
  FD_RETURN_IF_ERROR(RunPrompt(executor, tokens, tokens, second_ms));
  ms = std::min(ms, second_ms);
  return OkStatus();
}

// Prompts of so many tokens each, and few tokens of the longest prompt.
Status LoadKernels(Executor& executor, const std::vector<int64_t>& sizes, int64_t longest) {
  const Clock::time_point begin = Clock::now();
  double ms = 0;
  for (const int64_t tokens : sizes) FD_RETURN_IF_ERROR(RunPrompt(executor, tokens, tokens, ms));
  // No more than a step may have; longest is at least as many.
  FD_RETURN_IF_ERROR(RunPrompt(executor, std::min(StepPacer::kChunkTokens, sizes.back()), longest, ms));
  LogInfo("kernels: prompts of ", sizes.size(), " sizes of up to ", sizes.back(), " tokens ran in ",
          std::round(std::chrono::duration<double, std::milli>(Clock::now() - begin).count()), " ms");
  return OkStatus();
}

}  // namespace

Status RunFirstSteps(Executor& executor, const EngineOptions& options, Device device, StepPacer& pacer) {
  if (options.pooling != PoolingType::kNone) return OkStatus();
  const int64_t most = std::min(options.max_num_batched_tokens, options.MaxSequenceTokens());
  constexpr int64_t kMostLoadedFor = 2048;  // a larger step takes longer than what it may load
  ops::Context ctx;
  ctx.device = device;
  const std::vector<int64_t> sizes = ops::LinearRowClasses(ctx, std::min(most, kMostLoadedFor));
  if (!sizes.empty()) FD_RETURN_IF_ERROR(LoadKernels(executor, sizes, options.MaxSequenceTokens()));
  if (options.target_step_ms == 0) return OkStatus();
  StepPacer::Measured m;
  // A small model's steps on a CPU: shorter ones cost its prompts a quarter of their speed.
  if (device.type == DeviceType::kCpu) m.least_target_ms = 25;
  FD_RETURN_IF_ERROR(Measure(executor, 1, 100, m.one_token_ms));  // weights that were not read yet count here
  // A slow device gets a smaller step, so that the start does not wait for it.
  const bool fast = m.one_token_ms < 10;
  m.many = std::min<int64_t>(fast ? 256 : m.one_token_ms < 40 ? 64 : 16, most);
  FD_RETURN_IF_ERROR(Measure(executor, m.many, 50, m.many_ms));
  if (fast && m.many > StepPacer::kChunkTokens) {  // on a slow device few tokens cost what they are
    m.few = StepPacer::kChunkTokens;
    FD_RETURN_IF_ERROR(Measure(executor, m.few, 50, m.few_ms));
  }
  pacer.Start(m);
  const auto rounded = [](double ms) { return std::round(ms * 100) / 100; };
  LogInfo("steps: one token took ", rounded(m.one_token_ms), " ms, ", m.many, " took ", rounded(m.many_ms),
          " ms; for steps of ", rounded(pacer.target_ms()), " ms (--target-step-ms) prompts get ",
          pacer.prefill_tokens(), " of at most ", options.max_num_batched_tokens, " tokens a step at first");
  return OkStatus();
}

}  // namespace fd
