#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "engine/executor/executor.h"
#include "engine/first_steps.h"
#include "engine/prefill_meter.h"
#include "engine/request_check.h"
#include "engine/scheduler/controls.h"
#include "engine/scheduler/scheduler.h"
#include "engine/step_pacer.h"
#include "engine/step_watchdog.h"

namespace fd {
namespace {

// How long an idle loop sleeps at most before it shows that it is alive (last_heartbeat).
constexpr auto kIdleTurn = std::chrono::milliseconds(250);

}  // namespace

struct Engine::Impl {
  Impl(std::unique_ptr<Model> model_in, const ops::Context& ctx, const EngineOptions& options_in)
      : model(std::move(model_in)),
        options(options_in),
        scheduler(options, model->config().eos_token_ids),
        executor(*model, ctx, options),
        threads(ctx.threads),
        device(ctx.device),
        pacer(options.target_step_ms, options.max_num_batched_tokens),
        heartbeat(Clock::now()) {
    UpdateStats(0);
  }

  // Engine thread.
  void Loop();
  void NormalLoop();
  void OverlapLoop();
  bool Receive(bool may_sleep);
  void Launch(const StepPlan& plan);
  StepResult Wait();
  void Publish(const StepPlan& plan, const StepResult& result);
  void Fail(const StepResult& result);
  void EndBroken(const std::exception& error);
  void AbortAll();
  void EndExpired();
  void Append(Sequence& sequence, const StepResult::Token& token);
  void Score(Sequence& sequence, const StepResult::Scores& scores);
  void AppendEmbedding(Sequence& sequence, const std::vector<float>& embedding);
  void End(Sequence& sequence, FinishReason reason, Status error = OkStatus());
  void UpdateStats(int64_t step_tokens);
  void SendEvents();

  // Any thread: no new request from now on, and the first caller tells who waits for it (OnDeviceLost).
  void RefuseFromNowOn(const Status& why);
  void TellLost();
  void Watch();  // makes the watchdog

  const std::unique_ptr<Model> model;
  const EngineOptions options;

  // Engine thread alone.
  Scheduler scheduler;
  Executor executor;
  const ThreadPool* threads;  // of the ops; may be null
  const Device device;
  std::vector<std::pair<TokenSink, TokenEvent>> outbox;  // events of this turn; sent when the stats have them
  EngineStats working_stats;
  PrefillMeter prefill_meter;
  StepPacer pacer;
  std::unique_ptr<StepLog> step_log;   // null: nobody asked for one
  std::unique_ptr<Recorder> recorder;  // the same

  // The inbox: everything under its mutex.
  std::mutex inbox_mutex;
  std::condition_variable inbox_changed;  // the engine thread waits here
  std::condition_variable request_left;   // Drain waits here
  std::vector<GenerateRequest> submitted;
  std::vector<RequestId> aborted;
  std::unordered_set<RequestId> live;  // submitted and its last event not yet sent
  bool draining = false;
  bool abort_all = false;
  bool stopping = false;
  Status device_status;  // why the device is lost
  std::function<void()> on_device_lost;

  mutable std::mutex stats_mutex;
  EngineStats stats;
  std::atomic<Clock::time_point> heartbeat;
  std::atomic<bool> stuck{false};
  std::atomic<int64_t> slow_steps{0};
  std::optional<StepWatchdog> watchdog;  // from Start on, where options want one
  std::thread thread;
};

void Engine::Impl::Loop() {
  if (threads != nullptr) threads->PlaceCaller();
  try {
    if (options.overlap) {
      OverlapLoop();
    } else {
      NormalLoop();
    }
  } catch (const std::exception& e) {  // beside a step: memory, or a mistake of ours
    return EndBroken(e);
  }
  AbortAll();
}

// What the scheduler knows may be half true, so it is only asked who is left: each ends with an error, and
// with them the engine. The process should end.
void Engine::Impl::EndBroken(const std::exception& error) {
  const bool memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
  const Status why = Unavailable(memory ? std::string("the engine has no memory left and ends")
                                        : StrCat("the engine failed and ends: ", error.what()));
  if (watchdog) watchdog->End();
  RefuseFromNowOn(why);
  {
    std::lock_guard lock(inbox_mutex);
    for (GenerateRequest& request : submitted) scheduler.Add(std::move(request));
    submitted.clear();
  }
  const std::vector<RequestId> ids = scheduler.AllIds();
  LogError(why.message(), "; ", ids.size(), " requests end with an error");
  for (RequestId id : ids) {
    TokenEvent event;
    event.request_id = id;
    event.finish_reason = FinishReason::kError;
    event.error = why;
    outbox.emplace_back(std::move(scheduler.Find(id)->request.sink), std::move(event));
  }
  SendEvents();
  TellLost();
}

void Engine::Impl::RefuseFromNowOn(const Status& why) {
  std::lock_guard lock(inbox_mutex);
  if (device_status.ok()) device_status = why;
}

void Engine::Impl::TellLost() {
  std::function<void()> tell;
  {
    std::lock_guard lock(inbox_mutex);
    tell = std::exchange(on_device_lost, nullptr);
  }
  if (tell) tell();
}

void Engine::Impl::Watch() {
  if (options.step_timeout_s < 0) return;
  watchdog.emplace(StepWatchdog::Options{
      .limit_s = options.step_timeout_s,
      .min_limit_s = options.min_step_timeout_s,
      .slow =
          [this](double seconds, double limit) {
            slow_steps.fetch_add(1, std::memory_order_relaxed);
            LogWarning("a step has been running for ", Fixed(seconds, 1), " s; at ", Fixed(limit, 1),
                       " s (--step-timeout) the engine counts as stuck");
          },
      .stuck =
          [this](double seconds, double limit) {
            const Status why =
                Unavailable(StrCat("the engine is stuck: a step has been running for ", Fixed(seconds, 1),
                                   " s, the limit is ", Fixed(limit, 1), " s (--step-timeout)"));
            LogError(why.message());
            stuck = true;
            RefuseFromNowOn(why);
            TellLost();
          }});
}

// One turn of the loop is one step. Everything a request can cause happens in here, in this order.
void Engine::Impl::NormalLoop() {
  bool rested = true;  // the last turn had nothing to do
  while (Receive(rested)) {
    scheduler.SetPrefillLimits(pacer.prefill_tokens(), pacer.long_tokens());
    const StepPlan plan = scheduler.Schedule();
    Launch(plan);
    rested = plan.sequences.empty();
    if (!rested) FaultBadAlloc(Fault::kPlanAlloc);
    if (rested) {
      scheduler.CheckIdle();
    } else {
      Publish(plan, Wait());
    }
  }
}

// The same, but while a step runs the next one is planned and launched and the one before is published: the
// device does not wait for the host. A sequence that ends is computed once more, for nothing.
void Engine::Impl::OverlapLoop() {
  StepPlan running;  // without sequences: nothing is in flight
  bool rested = true;
  const auto receive = [&] {
    executor.WaitForMark();  // who comes while a long step runs is in the next one
    return Receive(rested);
  };
  while (receive()) {
    scheduler.SetPrefillLimits(pacer.prefill_tokens(), pacer.long_tokens());
    StepPlan next = scheduler.Schedule();
    Launch(next);
    rested = running.sequences.empty() && next.sequences.empty();
    if (!rested) FaultBadAlloc(Fault::kPlanAlloc);
    if (rested) scheduler.CheckIdle();
    if (!running.sequences.empty()) Publish(running, Wait());
    running = std::move(next);
  }
  if (!running.sequences.empty()) Publish(running, Wait());  // so that a record is whole
}

// Recorded before it runs: should it end the program, its plan is there.
void Engine::Impl::Launch(const StepPlan& plan) {
  if (recorder != nullptr) recorder->AddPlan(plan);
  pacer.Plan(plan);
  executor.Launch(plan, options.overlap ? pacer.PlanNextAfter(plan) : 0);
}

StepResult Engine::Impl::Wait() {
  StepResult result = executor.Wait();
  if (recorder != nullptr) recorder->AddResult(result);
  return result;
}

// Takes what arrived since the last turn; sleeps when there is nothing to do. False: the engine stops.
bool Engine::Impl::Receive(bool may_sleep) {
  std::vector<GenerateRequest> new_requests;
  std::vector<RequestId> to_abort;
  bool all = false;
  if (watchdog) watchdog->End();
  {
    std::unique_lock lock(inbox_mutex);
    auto has_work = [&] { return stopping || abort_all || !submitted.empty() || !aborted.empty(); };
    if (may_sleep && step_log != nullptr && !has_work()) {
      lock.unlock();
      step_log->Flush();
      lock.lock();
    }
    while (may_sleep && !has_work()) {
      heartbeat = Clock::now();
      inbox_changed.wait_until(lock, std::min(heartbeat.load() + kIdleTurn, scheduler.next_end()));
      if (scheduler.next_end() <= Clock::now()) break;
    }
    if (stopping) return false;
    new_requests.swap(submitted);
    to_abort.swap(aborted);
    all = std::exchange(abort_all, false);
  }
  heartbeat = Clock::now();
  if (watchdog) watchdog->Begin();
  for (GenerateRequest& request : new_requests) scheduler.Add(std::move(request));
  for (RequestId id : to_abort) {
    if (Sequence* sequence = scheduler.Find(id)) End(*sequence, FinishReason::kAborted);
  }
  if (all) {
    for (RequestId id : scheduler.AllIds()) End(*scheduler.Find(id), FinishReason::kAborted);
  }
  EndExpired();
  if (!outbox.empty()) {  // who was aborted need not wait for the next step to end
    UpdateStats(working_stats.last_step_tokens);
    SendEvents();
  }
  return true;
}

// Running or waiting; once a turn.
void Engine::Impl::EndExpired() {
  const Clock::time_point now = Clock::now();
  for (RequestId id : scheduler.Expired(now)) {
    Sequence& sequence = *scheduler.Find(id);
    const GenerateRequest& request = sequence.request;
    const auto seconds = [now](Clock::time_point since) {
      return std::round(std::chrono::duration<double>(now - since).count() * 10) / 10;
    };
    Status error = request.deadline <= now
                       ? Status(StatusCode::kDeadlineExceeded,
                                StrCat("the request was not done in its timeout of ", request.timeout_s,
                                       " seconds: ", sequence.generated_tokens(), " of at most ",
                                       request.sampling.max_tokens,
                                       " tokens were generated. Raise timeout or lower max_tokens"),
                                "timeout")
                       : Status(StatusCode::kDeadlineExceeded,
                                StrCat("the request waited ", seconds(request.submitted_at),
                                       " seconds in the queue, the limit is ", options.max_waiting_s,
                                       " (--max-waiting-time); try again later"));
    End(sequence, FinishReason::kError, std::move(error));
  }
}

// Appends the drawn tokens, ends what has ended, and tells everybody: stats first, so that who gets a last
// event sees numbers without it. A sequence that left while the step ran is passed over.
void Engine::Impl::Publish(const StepPlan& plan, const StepResult& result) {
  for (const SequenceStep& step : plan.sequences) {
    Sequence* sequence = scheduler.Find(step.request_id);
    if (sequence == nullptr) continue;
    const int64_t prompt_done = std::min(step.context_tokens, sequence->prompt_tokens);
    working_stats.prompt_tokens += std::max<int64_t>(prompt_done - sequence->counted_prompt_tokens, 0);
    sequence->counted_prompt_tokens = std::max(sequence->counted_prompt_tokens, prompt_done);
  }
  if (plan.num_tokens == plan.num_outputs && options.pooling == PoolingType::kNone) {
    working_stats.decode_ms += result.device_ms;
    working_stats.decode_idle_ms += result.device_idle_ms;
  }
  if (result.status.ok()) {
    for (const StepResult::Scores& scores : result.scores) {
      if (Sequence* sequence = scheduler.Find(scores.request_id)) Score(*sequence, scores);
    }
    for (const StepResult::Token& token : result.tokens) {
      if (Sequence* sequence = scheduler.Find(token.request_id)) Append(*sequence, token);
    }
    for (const SequenceStep& step : plan.sequences) {  // who draws nothing ends with its prompt
      Sequence* sequence = scheduler.Find(step.request_id);
      if (sequence != nullptr && sequence->request.sampling.max_tokens == 0 &&
          step.context_tokens == sequence->prompt_tokens) {
        End(*sequence, FinishReason::kLength);
      }
    }
  } else {
    Fail(result);
  }
  ++working_stats.steps;
  working_stats.step_sizes.Add(plan.num_tokens);
  working_stats.encoded_items += static_cast<int64_t>(plan.encodes.size());
  working_stats.encoded_tokens += plan.encode_tokens;
  working_stats.encoder_hits += plan.encoder_hits;
  working_stats.encoder_hit_tokens += plan.encoder_hit_tokens;
  working_stats.encode_ms += result.encode_ms;
  working_stats.prefix_queries += plan.prefix_queries;
  working_stats.prefix_hits += plan.prefix_hits;
  working_stats.prefix_query_tokens += plan.prefix_query_tokens;
  working_stats.prefix_hit_tokens += plan.prefix_hit_tokens;
  working_stats.prefix_host_hit_tokens += plan.prefix_host_hit_tokens;
  const PageMoveCounts moves = CountMoves(plan.page_moves);
  working_stats.pages_moved_out += moves.out;
  working_stats.pages_moved_in += moves.in;
  if (result.status.ok()) {
    const PageMoveMs& page_ms = executor.page_move_ms();
    const double in_ms = static_cast<double>(moves.in) * page_ms.in;
    const double out_ms = static_cast<double>(moves.out) * page_ms.out;
    const double wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - plan.begun_at).count();
    const double step_ms = result.device_ms > 0 ? result.device_ms : wall_ms;
    prefill_meter.Add(plan.num_tokens - plan.num_decodes, plan.num_decodes, step_ms,
                      result.encode_ms + in_ms + out_ms);
    pacer.Add(plan, std::max(step_ms - result.encode_ms - in_ms - out_ms, 0.0));
    working_stats.prefix_saved_ms += std::max(prefill_meter.MsOf(plan.prefix_hit_tokens) - in_ms, 0.0);
    working_stats.prefix_host_saved_ms +=
        std::max(prefill_meter.MsOf(plan.prefix_host_hit_tokens) - in_ms, 0.0);
    scheduler.SetMoveCosts(
        {.page_in_ms = page_ms.in, .page_out_ms = page_ms.out, .token_ms = prefill_meter.MsOf(1)});
  }
  UpdateStats(plan.num_tokens);
  if (step_log != nullptr) step_log->Add(plan, result, scheduler.num_waiting());
  SendEvents();
  if (result.device_lost) TellLost();
}

void Engine::Impl::AppendEmbedding(Sequence& sequence, const std::vector<float>& embedding) {
  if (!std::all_of(embedding.begin(), embedding.end(), [](float v) { return std::isfinite(v); })) {
    LogError("request ", sequence.request.id, ": the hidden states of its ", sequence.prompt_tokens,
             " tokens are not numbers; the request ends with an error");
    return End(
        sequence, FinishReason::kError,
        Internal(StrCat("the model gave no valid embedding of the ", sequence.prompt_tokens, " tokens")));
  }
  TokenEvent event;
  event.request_id = sequence.request.id;
  event.embedding = embedding;
  event.scheduled_at = sequence.scheduled_at;
  event.finish_reason = FinishReason::kStop;
  outbox.emplace_back(std::move(sequence.request.sink), std::move(event));
  scheduler.Remove(outbox.back().second.request_id);
}

void Engine::Impl::Append(Sequence& sequence, const StepResult::Token& token) {
  if (options.pooling != PoolingType::kNone) return AppendEmbedding(sequence, token.embedding);
  if (token.token_id < 0 && LeavesNothingToDraw(sequence, model->config().eos_token_ids)) {
    End(sequence, FinishReason::kError,
        InvalidArgument(
            StrCat("allowed_token_ids: bad_words or min_tokens forbid all ",
                   sequence.request.sampling.allowed_token_ids.size(), " of them as token ",
                   sequence.generated_tokens(), " of the answer: allow another one or forbid less"),
            "allowed_token_ids"));
    return;
  }
  if (token.token_id < 0) {
    LogError("request ", sequence.request.id, ": the logits of token ", sequence.tokens.size(),
             " are not numbers; the request ends with an error");
    const Status error =
        Internal(StrCat("the model gave no valid logits for token ", sequence.tokens.size()));
    End(sequence, FinishReason::kError, error);
    return;
  }
  const bool forced = sequence.ForcedToken(sequence.generated_tokens()) >= 0;
  const int32_t token_id = scheduler.Append(sequence, token.token_id);
  ++working_stats.generated_tokens;
  const SamplingParams& sampling = sequence.request.sampling;
  auto contains = [&](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token_id) != ids.end();
  };
  TokenEvent event;
  event.request_id = sequence.request.id;
  event.token_ids = {token_id};
  event.logprobs = {forced ? 0.0f : token.logprob};  // a forced token was certain, also where it was drawn
  if (sampling.top_logprobs > 0) event.top_logprobs = {token.top_logprobs};
  event.scheduled_at = sequence.scheduled_at;
  event.cached_tokens = sequence.cached_tokens;
  event.cached_host_tokens = sequence.cached_host_tokens;
  event.stopped_by_end_token =
      contains(sampling.stop_token_ids) || (!sampling.ignore_eos && contains(model->config().eos_token_ids));
  if (event.stopped_by_end_token) {
    event.finish_reason = FinishReason::kStop;
  } else if (sequence.generated_tokens() >= sampling.max_tokens) {
    event.finish_reason = FinishReason::kLength;
  }
  outbox.emplace_back(sequence.request.sink, std::move(event));
  if (outbox.back().second.finish_reason) scheduler.Remove(sequence.request.id);
}

void Engine::Impl::Score(Sequence& sequence, const StepResult::Scores& scores) {
  TokenEvent event;
  event.request_id = sequence.request.id;
  event.prompt_logprobs = scores.prompt_logprobs;
  event.scheduled_at = sequence.scheduled_at;
  for (const PromptLogprob& p : event.prompt_logprobs) {
    if (!std::isnan(p.logprob)) continue;
    return End(sequence, FinishReason::kError,
               Internal(StrCat("the model gave no valid logits for the prompt's token ", p.token_id)));
  }
  outbox.emplace_back(sequence.request.sink, std::move(event));
}

// Ends a sequence without a token.
void Engine::Impl::End(Sequence& sequence, FinishReason reason, Status error) {
  TokenEvent event;
  event.request_id = sequence.request.id;
  event.finish_reason = reason;
  event.error = std::move(error);
  event.scheduled_at = sequence.scheduled_at;
  const RequestId id = event.request_id;
  outbox.emplace_back(std::move(sequence.request.sink), std::move(event));
  if (reason == FinishReason::kError) {
    scheduler.Discard(id);
  } else {
    scheduler.Remove(id);
  }
}

// A step failed: what runs ends with its error; without a device also what waits, and nobody new is let in.
void Engine::Impl::Fail(const StepResult& result) {
  std::vector<RequestId> ids = scheduler.RunningIds();
  if (result.device_lost) {
    std::lock_guard lock(inbox_mutex);
    device_status = result.status;
    for (GenerateRequest& request : submitted) scheduler.Add(std::move(request));
    submitted.clear();
    ids = scheduler.AllIds();
  }
  if (!ids.empty()) LogError(result.status.message(), "; ", ids.size(), " requests end with an error");
  for (RequestId id : ids) End(*scheduler.Find(id), FinishReason::kError, result.status);
  scheduler.ForgetComputed();
}

// The engine stops: nothing may be left without its last event.
void Engine::Impl::AbortAll() {
  {
    std::lock_guard lock(inbox_mutex);
    for (GenerateRequest& request : submitted) scheduler.Add(std::move(request));
    submitted.clear();
    aborted.clear();
  }
  for (RequestId id : scheduler.AllIds()) End(*scheduler.Find(id), FinishReason::kAborted);
  scheduler.CheckIdle();
  UpdateStats(0);
  SendEvents();
}

void Engine::Impl::UpdateStats(int64_t step_tokens) {
  EngineStats& s = working_stats;
  s.running = scheduler.num_running();
  s.waiting = scheduler.num_waiting();
  s.preempted = scheduler.num_preempted();
  s.free_pages = scheduler.pages().free_pages();
  s.cached_pages = scheduler.pages().cached_pages();
  s.used_pages = scheduler.pages().used_pages();
  s.total_pages = scheduler.pages().total_pages();
  s.free_host_pages = scheduler.host_pages().free_pages();
  s.total_host_pages = scheduler.host_pages().total_pages();
  s.preemptions = scheduler.num_preemptions();
  s.encoder_kept_tokens = scheduler.encoder_slots().kept_tokens();
  s.encoder_capacity_tokens = scheduler.encoder_slots().capacity_tokens();
  s.last_step_tokens = step_tokens;
  s.max_step_tokens = std::max(s.max_step_tokens, step_tokens);
  std::lock_guard lock(stats_mutex);
  stats = s;
}

void Engine::Impl::SendEvents() {
  if (outbox.empty()) return;
  std::vector<RequestId> finished;
  for (auto& [sink, event] : outbox) {
    if (event.finish_reason) finished.push_back(event.request_id);
    if (sink) sink(std::move(event));
  }
  outbox.clear();
  if (finished.empty()) return;
  std::lock_guard lock(inbox_mutex);
  for (RequestId id : finished) live.erase(id);
  request_left.notify_all();
}

Engine::Engine(std::unique_ptr<Model> model, const ops::Context& ctx, const EngineOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), ctx, options)) {}

Engine::~Engine() {
  {
    std::lock_guard lock(impl_->inbox_mutex);
    impl_->stopping = true;
  }
  impl_->inbox_changed.notify_all();
  if (impl_->thread.joinable()) {
    impl_->thread.join();
  } else {
    impl_->AbortAll();  // never started
  }
}

Status Engine::Prepare() {
  FD_RETURN_IF_ERROR(impl_->executor.Prepare());
  return RunFirstSteps(impl_->executor, impl_->options, impl_->device, impl_->pacer);
}

void Engine::LogSteps(std::unique_ptr<StepLog> log) {
  FD_CHECK(!impl_->thread.joinable(), "started already");
  impl_->step_log = std::move(log);
}

void Engine::Record(std::unique_ptr<Recorder> recorder) {
  FD_CHECK(!impl_->thread.joinable(), "started already");
  impl_->recorder = std::move(recorder);
}

void Engine::OnDeviceLost(std::function<void()> lost) {
  FD_CHECK(!impl_->thread.joinable(), "started already");
  impl_->on_device_lost = std::move(lost);
}

bool Engine::stuck() const { return impl_->stuck; }

Status Engine::DeviceStatus() const {
  std::lock_guard lock(impl_->inbox_mutex);
  return impl_->device_status;
}

void Engine::Start() {
  FD_CHECK(!impl_->thread.joinable(), "started twice");
  impl_->Watch();
  impl_->thread = std::thread([impl = impl_.get()] { impl->Loop(); });
}

Status Engine::Submit(GenerateRequest request) {
  FD_RETURN_IF_ERROR(CheckRequest(request, config(), options()));
  {
    std::lock_guard lock(impl_->inbox_mutex);
    if (!impl_->device_status.ok()) return impl_->device_status;
    if (impl_->stopping || impl_->draining) return Unavailable("the server is shutting down");
    const int64_t live = static_cast<int64_t>(impl_->live.size());
    if (live >= options().max_num_seqs + options().max_waiting_requests) {
      return {StatusCode::kResourceExhausted,
              StrCat("the queue is full: ", live, " requests run or wait, the limit is ",
                     options().max_num_seqs, " running (--max-num-seqs) and ", options().max_waiting_requests,
                     " waiting (--max-waiting-requests); try again later")};
    }
    if (!impl_->live.insert(request.id).second)
      return Internal(StrCat("request id ", request.id, " is in use"));
    request.submitted_at = Clock::now();
    impl_->submitted.push_back(std::move(request));
  }
  impl_->inbox_changed.notify_one();
  return OkStatus();
}

void Engine::Abort(RequestId id) {
  {
    std::lock_guard lock(impl_->inbox_mutex);
    if (!impl_->live.contains(id)) return;
    impl_->aborted.push_back(id);
  }
  impl_->inbox_changed.notify_one();
}

void Engine::Wake() {
  // Under the lock: the loop either waits and is woken, or is about to turn anyway.
  std::lock_guard lock(impl_->inbox_mutex);
  impl_->inbox_changed.notify_one();
}

void Engine::Drain(Clock::time_point deadline) {
  std::unique_lock lock(impl_->inbox_mutex);
  impl_->draining = true;
  auto empty = [&] { return impl_->live.empty(); };
  if (impl_->thread.joinable() && impl_->request_left.wait_until(lock, deadline, empty)) return;
  impl_->abort_all = true;
  if (!impl_->thread.joinable()) {  // never started: this thread stands in for it
    lock.unlock();
    impl_->AbortAll();
    return;
  }
  impl_->inbox_changed.notify_all();
  impl_->request_left.wait(lock, empty);
}

EngineStats Engine::Stats() const {
  EngineStats stats;
  {
    std::lock_guard lock(impl_->stats_mutex);
    stats = impl_->stats;
  }
  stats.slow_steps = impl_->slow_steps.load(std::memory_order_relaxed);
  // Its own thread may stop it while no step runs.
  stats.recording = impl_->recorder != nullptr && impl_->recorder->recording();
  stats.recorded_bytes = impl_->recorder != nullptr ? impl_->recorder->written_bytes() : 0;
  std::lock_guard lock(impl_->inbox_mutex);
  stats.waiting += static_cast<int64_t>(impl_->submitted.size());
  return stats;
}

Clock::time_point Engine::last_heartbeat() const { return impl_->heartbeat; }
const ModelConfig& Engine::config() const { return impl_->model->config(); }
const EngineOptions& Engine::options() const { return impl_->options; }

}  // namespace fd
