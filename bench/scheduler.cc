// What planning a step costs with many sequences: decodes, arrivals and departures, preemptions.
//
//   bench_scheduler
//
// No device: the tokens are made up at once. Microseconds of the one thread that plans.
#include <chrono>
#include <cstdio>
#include <vector>

#include "engine/scheduler/scheduler.h"

namespace fd {
namespace {

double MicrosecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

GenerateRequest Request(RequestId id, int64_t prompt, int64_t max_tokens, int64_t priority = 0) {
  GenerateRequest r;
  r.id = id;
  r.priority = priority;
  for (int64_t i = 0; i < prompt; ++i) r.token_ids.push_back(static_cast<int32_t>((id * 131 + i) % 100'000));
  r.sampling.max_tokens = max_tokens;
  return r;
}

// Appends a token to each sequence that draws one; who has all of them leaves. Returns how many left.
int64_t Publish(Scheduler& scheduler, const StepPlan& plan) {
  int64_t left = 0;
  for (const SequenceStep& s : plan.sequences) {
    Sequence* sequence = s.samples ? scheduler.Find(s.request_id) : nullptr;
    if (sequence == nullptr) continue;
    scheduler.Append(*sequence, static_cast<int32_t>((s.request_id + s.context_tokens) % 100'000));
    if (sequence->generated_tokens() < sequence->request.sampling.max_tokens) continue;
    scheduler.Remove(s.request_id);
    ++left;
  }
  return left;
}

void Measure(int64_t sequences) {
  constexpr int64_t kPrompt = 500, kOutput = 200;
  EngineOptions options;
  options.max_model_len = 4096;
  options.max_num_seqs = sequences;
  options.max_num_batched_tokens = 8192;
  options.num_kv_pages = sequences * 12;
  Scheduler scheduler(options);
  RequestId id = 0;
  while (id < static_cast<RequestId>(sequences)) scheduler.Add(Request(++id, kPrompt, 4 * kOutput));
  while (scheduler.num_waiting() > 0) Publish(scheduler, scheduler.Schedule());
  constexpr int kSteps = 100;
  double plan_us = 0, publish_us = 0;
  for (int i = 0; i < kSteps; ++i) {
    const Clock::time_point begin = Clock::now();
    const StepPlan plan = scheduler.Schedule();
    plan_us += MicrosecondsSince(begin);
    const Clock::time_point planned = Clock::now();
    Publish(scheduler, plan);
    publish_us += MicrosecondsSince(planned);
  }
  std::printf("%5lld decodes: plan %.0f us, tokens appended %.0f us a step\n",
              static_cast<long long>(sequences), plan_us / kSteps, publish_us / kSteps);
  // All leave at once and as many others come.
  Clock::time_point begin = Clock::now();
  for (const RequestId leaving : scheduler.AllIds()) scheduler.Remove(leaving);
  const double remove_us = MicrosecondsSince(begin);
  std::vector<GenerateRequest> requests;
  for (int64_t i = 0; i < 2 * sequences; ++i) requests.push_back(Request(++id, kPrompt, kOutput, i % 7));
  begin = Clock::now();
  for (GenerateRequest& r : requests) scheduler.Add(std::move(r));
  std::printf("%5lld sequences: leaving %.1f us each, joining a queue of up to %lld %.1f us each\n",
              static_cast<long long>(sequences), remove_us / static_cast<double>(sequences),
              static_cast<long long>(2 * sequences),
              MicrosecondsSince(begin) / static_cast<double>(2 * sequences));
  // Twice as many as have a place, seven priorities, outputs that end; then more urgent ones, each of which
  // takes a place.
  double all_us = 0, worst_us = 0;
  int64_t steps = 0, preemptions = scheduler.num_preemptions();
  for (; steps < 400 && !scheduler.idle(); ++steps) {
    if (steps % 4 == 3) scheduler.Add(Request(++id, kPrompt, kOutput, -1));
    begin = Clock::now();
    const StepPlan plan = scheduler.Schedule();
    Publish(scheduler, plan);
    const double us = MicrosecondsSince(begin);
    all_us += us;
    worst_us = std::max(worst_us, us);
  }
  preemptions = scheduler.num_preemptions() - preemptions;
  std::printf(
      "%5lld places, twice as many requests, more urgent ones arriving: %.0f us a step, worst %.0f, %lld "
      "preemptions\n",
      static_cast<long long>(sequences), all_us / static_cast<double>(steps), worst_us,
      static_cast<long long>(preemptions));
}

}  // namespace
}  // namespace fd

int main() {
  for (const int64_t sequences : {64, 512, 2048}) fd::Measure(sequences);
}
