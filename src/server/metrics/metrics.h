// What happened, counted and written as Prometheus text under FastDeploy's names, vLLM's or both. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "engine/plan/request.h"
#include "engine/plan/step_sizes.h"

namespace fd {

// The engine's state at the moment of a scrape.
struct MetricsGauges {
  int64_t running = 0;  // sequences
  int64_t waiting = 0;
  int64_t preempted = 0;  // of the waiting: those that must be computed again
  int64_t max_num_seqs = 0;
  int64_t free_pages = 0;
  int64_t cached_pages = 0;
  int64_t used_pages = 0;
  int64_t total_pages = 0;
  int64_t media_jobs = 0;           // pictures and videos that are fetched or prepared, or wait for it
  int64_t media_bytes = 0;          // what they hold
  int64_t preemptions = 0;          // since start
  int64_t slow_steps = 0;           // since start
  int64_t lost_log_lines = 0;       // since start
  StepSizes step_sizes;             // since start
  double prefix_saved_seconds = 0;  // since start
  // Pages on the host; the last three since start.
  int64_t free_host_pages = 0;
  int64_t total_host_pages = 0;
  int64_t pages_moved_out = 0;
  int64_t pages_moved_in = 0;
  double prefix_host_saved_seconds = 0;  // of prefix_saved_seconds
  bool recording = false;                // --record, and its file can be written
  int64_t recorded_bytes = 0;            // since start
  // The encoder of pictures; the first five count since start.
  int64_t encoded_items = 0;
  int64_t encoded_tokens = 0;
  double encode_seconds = 0;
  int64_t encoder_hits = 0;
  int64_t encoder_hit_tokens = 0;
  int64_t encoder_kept_tokens = 0;
  int64_t encoder_capacity_tokens = 0;
};

enum class MetricNames { kFastDeploy, kVllm, kBoth };
inline constexpr const char* kMetricNames[] = {"fastdeploy", "vllm", "both"};  // of --metrics-names, in order

// What does not change while the server runs.
struct MetricsInfo {
  MetricNames names = MetricNames::kFastDeploy;
  std::string model_name;  // label of vLLM's names
  // cache_config_info.
  int64_t page_tokens = 0;
  std::string cache_dtype;
  bool prefix_caching = false;
  double swap_space_gib = 0;
  int64_t host_pages = 0;
  double memory_share = 0;
  int64_t encoder_cache_tokens = 0;
  int64_t processor_cache_bytes = 0;
};

// The life of one choice. Times not reached stay default (epoch).
struct SequenceTimes {
  Clock::time_point arrived_at{};    // the request was read
  Clock::time_point submitted_at{};  // parsed, templated, tokenised
  Clock::time_point scheduled_at{};  // first time in a step
  Clock::time_point first_token_at{};
  Clock::time_point last_token_at{};
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t max_tokens = 0;  // the effective limit
  int64_t cached_tokens = 0;
  int64_t cached_host_tokens = 0;  // of them
};

// kSuccess: by an end token or a stop text; kLength: max_tokens or the model's length.
enum class SequenceOutcome { kSuccess, kLength, kAborted, kFailed };

class Metrics {
 public:
  Metrics();
  ~Metrics();
  // Before the first request.
  void SetInfo(MetricsInfo info);

  // choices: prompts times n.
  void RequestReceived(int64_t choices = 1);
  // All its choices have ended; longest: the tokens of the longest.
  void RequestFinished(int64_t longest);
  // cached_tokens: of the prompt's, those that were not computed; cached_host_tokens: of these, those that
  // lay on the host.
  void FirstToken(double seconds_since_arrival, int64_t prompt_tokens, int64_t cached_tokens,
                  int64_t cached_host_tokens = 0);
  // `tokens` arrived together, `seconds` after the ones before.
  void NextTokens(double seconds, int64_t tokens);
  void SequenceFinished(const SequenceTimes& times, SequenceOutcome outcome);
  // method: one of a fixed set; path: a route of the table. Both are labels: never what a client wrote.
  void HttpResponse(std::string_view method, std::string_view path, int status, double seconds);

  void MediaFetched(double seconds);
  void MediaPrepared(bool video, double seconds);
  void ProcessorCacheLookup(bool hit);

  // Prometheus text format 0.0.4.
  std::string Text(const MetricsGauges& gauges);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fd
