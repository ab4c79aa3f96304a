// What happened, counted under FastDeploy's metric names and written as Prometheus text. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/plan/request.h"

namespace fd {

// The engine's state at the moment of a scrape.
struct MetricsGauges {
  int64_t running = 0;  // sequences
  int64_t waiting = 0;
  int64_t max_num_seqs = 0;
  int64_t free_pages = 0;
  int64_t cached_pages = 0;
  int64_t used_pages = 0;
  int64_t total_pages = 0;
  int64_t media_jobs = 0;   // pictures and videos that are fetched or prepared, or wait for it
  int64_t media_bytes = 0;  // what they hold
  // The encoder of pictures; the first five count since start.
  int64_t encoded_items = 0;
  int64_t encoded_tokens = 0;
  double encode_seconds = 0;
  int64_t encoder_hits = 0;
  int64_t encoder_hit_tokens = 0;
  int64_t encoder_kept_tokens = 0;
  int64_t encoder_capacity_tokens = 0;
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
};

enum class SequenceOutcome { kSuccess, kAborted, kFailed };

class Metrics {
 public:
  Metrics();
  ~Metrics();

  void RequestReceived();
  void FirstToken(double seconds_since_arrival);
  // `tokens` arrived together, `seconds` after the ones before.
  void NextTokens(double seconds, int64_t tokens);
  void SequenceFinished(const SequenceTimes& times, SequenceOutcome outcome);
  // path: a route of the table, never what a client wrote.
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
