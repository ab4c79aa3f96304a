#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/text_serializer.h>

#include <array>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "server/metrics/metric_table.h"
#include "server/metrics/process_stats.h"

namespace fd {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using Labels = std::vector<ClientMetric::Label>;

std::vector<double> Bounds(BucketList list) {
  const std::span<const double> bounds = BucketsOf(list);
  return {bounds.begin(), bounds.end()};
}

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

bool Reached(Clock::time_point t) { return t != Clock::time_point{}; }

bool IsVllm(std::string_view name) { return name.starts_with("vllm:"); }

bool IsWritten(std::string_view name, MetricNames names) {
  if (name.starts_with("fastdeploy:")) return names != MetricNames::kVllm;
  return !IsVllm(name) || names != MetricNames::kFastDeploy;
}

prometheus::MetricType TypeOf(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return prometheus::MetricType::Counter;
    case MetricKind::kGauge:
      return prometheus::MetricType::Gauge;
    case MetricKind::kHistogram:
      return prometheus::MetricType::Histogram;
  }
  return prometheus::MetricType::Untyped;
}

ClientMetric HistogramOf(const StepSizes& sizes) {
  ClientMetric metric;
  metric.histogram.sample_count = static_cast<uint64_t>(sizes.num_steps);
  metric.histogram.sample_sum = static_cast<double>(sizes.num_tokens);
  int64_t below = 0;
  for (size_t i = 0; i < sizes.steps.size(); ++i) {
    below += sizes.steps[i];
    const double bound = i < StepSizes::kBounds.size() ? static_cast<double>(StepSizes::kBounds[i])
                                                       : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({static_cast<uint64_t>(below), bound});
  }
  return metric;
}

}  // namespace

struct Metrics::Impl {
  // One of the three, by the table.
  struct Value {
    std::unique_ptr<prometheus::Counter> counter;
    std::unique_ptr<prometheus::Gauge> gauge;
    std::unique_ptr<prometheus::Histogram> histogram;

    ClientMetric Collect() const {
      return counter ? counter->Collect() : gauge ? gauge->Collect() : histogram->Collect();
    }
  };
  std::array<Value, static_cast<size_t>(Series::kCount)> values;
  MetricsInfo info;
  std::atomic<int64_t> begun_sequences = 0;  // that have a first token
  std::atomic<int64_t> hit_sequences = 0;    // of them, those with cached prompt tokens

  std::mutex scrape_mutex;
  StepSizes step_sizes;  // the latest that a scrape saw

  // The table of routes is small, so this stays small.
  std::mutex http_mutex;
  std::map<std::tuple<std::string, std::string, int>, prometheus::Counter> http_counters;
  std::map<std::pair<std::string, std::string>, prometheus::Histogram> http_histograms;

  Impl() {
    for (const MetricRow& row : MetricTable()) {
      Value& value = values[static_cast<size_t>(row.series)];
      if (value.counter || value.gauge || value.histogram) continue;
      switch (row.kind) {
        case MetricKind::kCounter:
          value.counter = std::make_unique<prometheus::Counter>();
          break;
        case MetricKind::kGauge:
          value.gauge = std::make_unique<prometheus::Gauge>();
          break;
        case MetricKind::kHistogram:
          value.histogram = std::make_unique<prometheus::Histogram>(Bounds(row.buckets));
          break;
      }
    }
  }

  prometheus::Counter& Counter(Series series) { return *values[static_cast<size_t>(series)].counter; }
  prometheus::Histogram& Histogram(Series series) { return *values[static_cast<size_t>(series)].histogram; }
  void Add(Series series, int64_t amount = 1) { Counter(series).Increment(static_cast<double>(amount)); }
  void AddCached(int64_t tokens, int64_t host_tokens) {
    Add(Series::kCachedTokens, tokens);
    Add(Series::kCachedHostTokens, host_tokens);
    Add(Series::kCachedDeviceTokens, tokens - host_tokens);
  }
  template <typename Number>
  void Set(Series series, Number value) {
    values[static_cast<size_t>(series)].gauge->Set(static_cast<double>(value));
  }
  template <typename Number>
  void Observe(Series series, Number value) {
    Histogram(series).Observe(static_cast<double>(value));
  }
  // Totals that are counted elsewhere: what was added since the last scrape is added here. Never falls,
  // whatever the order in which scrapes read them.
  template <typename Number>
  void Raise(Series series, Number total) {
    const double more = static_cast<double>(total) - Counter(series).Value();
    if (more > 0) Counter(series).Increment(more);
  }

  void TakeGauges(const MetricsGauges& g);
  void TakeProcess();
  Labels LabelsOf(const MetricRow& row, int64_t pages) const;
  void AppendHttp(const MetricRow& row, MetricFamily& family);
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::SetInfo(MetricsInfo info) {
  std::lock_guard lock(impl_->scrape_mutex);
  impl_->info = std::move(info);
}

void Metrics::RequestReceived(int64_t choices) {
  impl_->Add(Series::kRequests);
  impl_->Observe(Series::kRequestChoices, choices);
}

void Metrics::RequestFinished(int64_t longest) { impl_->Observe(Series::kRequestMaxGeneration, longest); }

void Metrics::FirstToken(double seconds_since_arrival, int64_t prompt_tokens, int64_t cached_tokens,
                         int64_t cached_host_tokens) {
  Impl& m = *impl_;
  m.Observe(Series::kFirstToken, seconds_since_arrival);
  m.Set(Series::kFirstTokenLatency, seconds_since_arrival);
  m.Add(Series::kGenerationTokens);
  m.Add(Series::kPromptTokens, prompt_tokens);
  m.AddCached(cached_tokens, cached_host_tokens);
  m.Observe(Series::kRequestComputed, prompt_tokens - cached_tokens);
  ++m.begun_sequences;
  if (cached_tokens > 0) ++m.hit_sequences;
}

void Metrics::NextTokens(double seconds, int64_t tokens) {
  if (tokens <= 0) return;
  const double each = seconds / static_cast<double>(tokens);
  for (int64_t i = 0; i < tokens; ++i) impl_->Observe(Series::kPerToken, each);
  impl_->Set(Series::kInferLatency, each);
  impl_->Add(Series::kGenerationTokens, tokens);
}

void Metrics::SequenceFinished(const SequenceTimes& t, SequenceOutcome outcome) {
  Impl& m = *impl_;
  switch (outcome) {
    case SequenceOutcome::kSuccess:
      m.Add(Series::kSuccesses);
      m.Add(Series::kStopped);
      break;
    case SequenceOutcome::kLength:
      m.Add(Series::kSuccesses);
      m.Add(Series::kLengths);
      break;
    case SequenceOutcome::kAborted:
      m.Add(Series::kAborted);
      break;
    case SequenceOutcome::kFailed:
      m.Add(Series::kFailed);
      break;
  }
  m.Observe(Series::kRequestMaxTokens, t.max_tokens);
  m.Observe(Series::kRequestPrompt, t.prompt_tokens);
  m.Observe(Series::kRequestGeneration, t.generated_tokens);
  m.Observe(Series::kEndToEnd, Seconds(t.arrived_at, Clock::now()));
  if (Reached(t.scheduled_at)) m.Observe(Series::kQueue, Seconds(t.submitted_at, t.scheduled_at));
  const bool done = outcome == SequenceOutcome::kSuccess || outcome == SequenceOutcome::kLength;
  if (done && t.generated_tokens == 0) {  // a request for its prompt alone
    m.Add(Series::kPromptTokens, t.prompt_tokens);
    m.AddCached(t.cached_tokens, t.cached_host_tokens);
  }
  if (!Reached(t.first_token_at)) return;
  const double decode = Seconds(t.first_token_at, t.last_token_at);
  m.Observe(Series::kDecode, decode);
  if (t.generated_tokens > 1)
    m.Observe(Series::kMeanPerToken, decode / static_cast<double>(t.generated_tokens - 1));
  if (!Reached(t.scheduled_at)) return;
  const double inference = Seconds(t.scheduled_at, t.last_token_at);
  m.Observe(Series::kPrefill, Seconds(t.scheduled_at, t.first_token_at));
  m.Observe(Series::kInference, inference);
  if (inference > 0) m.Observe(Series::kRequestRate, static_cast<double>(t.generated_tokens) / inference);
}

void Metrics::HttpResponse(std::string_view method, std::string_view path, int status, double seconds) {
  Impl& m = *impl_;
  std::lock_guard lock(m.http_mutex);
  m.http_counters[{std::string(method), std::string(path), status}].Increment();
  m.http_histograms.try_emplace({std::string(method), std::string(path)}, Bounds(BucketList::kHttp))
      .first->second.Observe(seconds);
}

void Metrics::MediaFetched(double seconds) { impl_->Observe(Series::kMediaFetch, seconds); }

void Metrics::MediaPrepared(bool video, double seconds) {
  impl_->Add(video ? Series::kVideos : Series::kPictures);
  impl_->Observe(video ? Series::kVideoPrepare : Series::kImagePrepare, seconds);
}

void Metrics::ProcessorCacheLookup(bool hit) {
  impl_->Add(Series::kProcessorQueries);
  impl_->Add(hit ? Series::kProcessorHits : Series::kProcessorMisses);
}

void Metrics::Impl::TakeGauges(const MetricsGauges& g) {
  using enum Series;
  Set(kMediaJobs, g.media_jobs);
  Set(kMediaBytes, g.media_bytes);
  Raise(kEncoderItems, g.encoded_items);
  Raise(kEncoderTokens, g.encoded_tokens);
  Raise(kEncoderSeconds, g.encode_seconds);
  Raise(kEncoderHits, g.encoder_hits);
  Raise(kEncoderMisses, g.encoded_items);
  Raise(kEncoderHitTokens, g.encoder_hit_tokens);
  Raise(kEncoderMissTokens, g.encoded_tokens);
  Set(kEncoderKept, g.encoder_kept_tokens);
  Set(kEncoderCapacity, g.encoder_capacity_tokens);
  Set(kRunning, g.running);
  Set(kWaiting, g.waiting);
  Set(kPreempted, g.preempted);
  Raise(kPreemptions, g.preemptions);
  Raise(kSlowSteps, g.slow_steps);
  Raise(kLostLogLines, g.lost_log_lines);
  Raise(kPrefixSavedSeconds, g.prefix_saved_seconds);
  Raise(kPrefixHostSavedSeconds, g.prefix_host_saved_seconds);
  Raise(kPagesMovedOut, g.pages_moved_out);
  Raise(kPagesMovedIn, g.pages_moved_in);
  Set(kFreeHostPages, g.free_host_pages);
  Set(kMaxHostPages, g.total_host_pages);
  Set(kRecording, g.recording ? 1 : 0);
  Raise(kRecordedBytes, g.recorded_bytes);
  if (g.step_sizes.num_steps > step_sizes.num_steps) step_sizes = g.step_sizes;
  Set(kMaxBatch, g.max_num_seqs);
  Set(kFreeBatch, g.max_num_seqs - g.running);
  const auto total = static_cast<double>(g.total_pages);
  const auto available = static_cast<double>(g.free_pages + g.cached_pages);
  Set(kCacheUsage, total > 0 ? static_cast<double>(g.used_pages) / total : 0);
  Set(kAvailablePages, available);
  Set(kFreePages, g.free_pages);
  Set(kMaxPages, total);
  Set(kAvailableShare, total > 0 ? available / total : 0);
  const double prompt_tokens = Counter(kPromptTokens).Value();
  const auto share = [&](Series tokens) {
    return prompt_tokens > 0 ? Counter(tokens).Value() / prompt_tokens : 0;
  };
  Set(kHitTokenRate, share(kCachedTokens));
  Set(kDeviceHitTokenRate, share(kCachedDeviceTokens));
  Set(kHostHitTokenRate, share(kCachedHostTokens));
  const int64_t begun = begun_sequences;
  Set(kHitRequestRate, begun > 0 ? static_cast<double>(hit_sequences) / static_cast<double>(begun) : 0);
  Set(kCacheInfo, 1);
}

void Metrics::Impl::TakeProcess() {
  using enum Series;
  const ProcessStats stats = ReadProcessStats();
  Raise(kCpuSeconds, stats.cpu_seconds);
  Set(kResidentBytes, stats.resident_bytes);
  Set(kVirtualBytes, stats.virtual_bytes);
  Set(kOpenFiles, stats.open_files);
  Set(kMaxFiles, stats.max_files);
  Set(kStartTime, stats.start_unix_s);
}

Labels Metrics::Impl::LabelsOf(const MetricRow& row, int64_t pages) const {
  const bool vllm = IsVllm(row.name);
  Labels labels;
  if (vllm) labels = {{"model_name", info.model_name}, {"engine", "0"}};
  if (const std::string_view label = row.label; !label.empty()) {
    const size_t equals = label.find('=');
    labels.push_back({std::string(label.substr(0, equals)), std::string(label.substr(equals + 1))});
  }
  if (row.series != Series::kCacheInfo) return labels;
  labels.push_back({"block_size", StrCat(info.page_tokens)});
  labels.push_back({"cache_dtype", info.cache_dtype});
  labels.push_back({"gpu_memory_utilization", StrCat(info.memory_share)});
  labels.push_back({"enable_prefix_caching", info.prefix_caching ? "True" : "False"});
  if (vllm) {
    labels.push_back({"num_gpu_blocks", StrCat(pages)});
    labels.push_back({"num_cpu_blocks", StrCat(info.host_pages)});
    labels.push_back({"kv_cache_size_tokens", StrCat(pages * info.page_tokens)});
  } else {
    labels.push_back({"total_block_num", StrCat(pages)});
    labels.push_back({"enable_chunked_prefill", "True"});
    labels.push_back({"swap_space", StrCat(info.swap_space_gib)});
    labels.push_back({"max_encoder_cache", StrCat(info.encoder_cache_tokens)});
    labels.push_back({"max_processor_cache", StrCat(info.processor_cache_bytes)});
  }
  return labels;
}

void Metrics::Impl::AppendHttp(const MetricRow& row, MetricFamily& family) {
  std::lock_guard lock(http_mutex);
  if (row.series == Series::kHttpRequests) {
    for (const auto& [key, counter] : http_counters) {
      const auto& [method, path, status] = key;
      ClientMetric& metric = family.metric.emplace_back(counter.Collect());
      metric.label = {{"method", method}, {"path", path}, {"status_code", StrCat(status)}};
    }
  } else {
    for (const auto& [key, histogram] : http_histograms) {
      ClientMetric& metric = family.metric.emplace_back(histogram.Collect());
      metric.label = {{"method", key.first}, {"path", key.second}};
    }
  }
}

std::string Metrics::Text(const MetricsGauges& g) {
  Impl& m = *impl_;
  std::lock_guard lock(m.scrape_mutex);
  m.TakeGauges(g);
  m.TakeProcess();
  std::vector<MetricFamily> families;
  for (const MetricRow& row : MetricTable()) {
    if (!IsWritten(row.name, m.info.names)) continue;
    if (families.empty() || families.back().name != row.name) {
      families.push_back({row.name, row.help, TypeOf(row.kind), {}});
    }
    MetricFamily& family = families.back();
    if (row.series == Series::kHttpRequests || row.series == Series::kHttpSeconds) {
      m.AppendHttp(row, family);
      continue;
    }
    ClientMetric metric = row.series == Series::kStepTokens
                              ? HistogramOf(m.step_sizes)
                              : m.values[static_cast<size_t>(row.series)].Collect();
    metric.label = m.LabelsOf(row, g.total_pages);
    family.metric.push_back(std::move(metric));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace fd
