// The loop: receive -> schedule -> execute -> publish. Owns every sequence. Speaks token ids, page ids and
// plans.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"
#include "engine/plan/step_sizes.h"
#include "engine/record/recorder.h"
#include "engine/step_log.h"
#include "model/model.h"

namespace fd {

// A consistent snapshot, made by the engine thread once a step.
struct EngineStats {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t preempted = 0;  // of the waiting: those that must be computed again
  int64_t free_pages = 0;
  int64_t cached_pages = 0;
  int64_t used_pages = 0;
  int64_t total_pages = 0;
  int64_t steps = 0;
  int64_t prompt_tokens = 0;     // computed, since start
  int64_t generated_tokens = 0;  // since start
  int64_t preemptions = 0;       // since start
  int64_t last_step_tokens = 0;
  int64_t max_step_tokens = 0;  // the largest step since start
  int64_t slow_steps = 0;       // since start: those that took a quarter of the limit (step_watchdog.h)
  StepSizes step_sizes;         // of the steps since start
  // The device's time in steps, and between one step and the next that followed in the same turn of the loop;
  // of steps of decodes alone. Both 0 on the CPU.
  double decode_ms = 0;
  double decode_idle_ms = 0;
  // Pictures, since start: those encoded, those that a sequence needed and found kept, and what encoding took
  // (on the CPU time on the clock, on a GPU time between two marks).
  int64_t encoded_items = 0;
  int64_t encoded_tokens = 0;
  int64_t encoder_hits = 0;
  int64_t encoder_hit_tokens = 0;
  double encode_ms = 0;
  // The prefix tree, since start: admissions that looked into it and that found something, their tokens
  // (prompt and, after a preemption, output) and how many of these were found.
  int64_t prefix_queries = 0;
  int64_t prefix_hits = 0;
  int64_t prefix_query_tokens = 0;
  int64_t prefix_hit_tokens = 0;
  double prefix_saved_ms = 0;  // what computing them would have taken (prefill_meter.h), less moving them
  // Pages on the host; the last four since start: found tokens that lay there, what they saved, pages moved.
  int64_t free_host_pages = 0;
  int64_t total_host_pages = 0;
  int64_t prefix_host_hit_tokens = 0;
  double prefix_host_saved_ms = 0;
  int64_t pages_moved_out = 0;
  int64_t pages_moved_in = 0;
  int64_t encoder_kept_tokens = 0;      // now
  int64_t encoder_capacity_tokens = 0;  // rows of the encoder slab
  bool recording = false;               // steps are recorded, and nothing has kept them from it
  int64_t recorded_bytes = 0;           // since start
};

class Engine {
 public:
  // ctx is used by the engine thread alone after Start.
  Engine(std::unique_ptr<Model> model, const ops::Context& ctx, const EngineOptions& options);
  ~Engine();  // aborts what runs and joins the thread

  // Records decode steps where the device can replay them. Optional, before Start; not ok: the device is
  // lost.
  Status Prepare();
  // Before Start.
  void LogSteps(std::unique_ptr<StepLog> log);
  // Before Start; the recorder has begun. What is recorded is whole once the engine is destroyed.
  void Record(std::unique_ptr<Recorder> recorder);
  // `lost` is called once when the engine can do nothing more, and the process should end: DeviceStatus says
  // why, and no new request is taken. When the device is lost, or the loop itself failed, every request has
  // ended with kUnavailable by then, and the engine thread calls. When a step is stuck (stuck(),
  // EngineOptions::step_timeout_s) the requests at work get no event any more, and the watchdog's thread
  // calls.
  void OnDeviceLost(std::function<void()> lost);
  void Start();
  // Any thread. Refuses at once (nothing is queued, the sink is never called) a prompt that can never fit,
  // with both numbers, a malformed request (request_check.h), a full queue (kResourceExhausted) and, once
  // draining or without a device, everything (kUnavailable).
  Status Submit(GenerateRequest request);
  // Any thread. The sequence leaves within one step and its sink gets kAborted; unknown or finished ids are
  // ignored.
  void Abort(RequestId id);
  // No new requests; returns when all that run or wait have finished, or aborts them at the deadline. Every
  // sink has then got its last event.
  void Drain(Clock::time_point deadline);
  EngineStats Stats() const;
  // OK, or why the device is lost, or the engine.
  Status DeviceStatus() const;
  // A step does not end. The destructor would wait for it for ever, so the process can only leave (_exit).
  bool stuck() const;
  // Any thread. An idle loop turns at once.
  void Wake();
  // When the loop last turned, with work or without: /health looks at it.
  Clock::time_point last_heartbeat() const;

  const ModelConfig& config() const;
  const EngineOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fd
