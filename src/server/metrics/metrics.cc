#include "server/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <tuple>
#include <vector>

namespace fd {
namespace {

using Buckets = std::vector<double>;

// FastDeploy's buckets; the first two lists go on where its own end, because a picture's first token takes
// longer.
const Buckets kFirstToken = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,
                             .75,  1,    2.5, 5,   10,  20,  40,  60, 120};
const Buckets kPerToken = {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5};
const Buckets kLong = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                       30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
const Buckets kHttp = {.01, .025, .05, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60};

const Buckets kMedia = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120};

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

bool Reached(Clock::time_point t) { return t != Clock::time_point{}; }

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;

  prometheus::Counter& Counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }

  prometheus::Counter& requests = Counter("fastdeploy:requests_number_total", "Requests received");
  prometheus::Counter& successes =
      Counter("fastdeploy:request_success_total", "Sequences that finished well");
  prometheus::Counter& aborted =
      Counter("fastdeploy:request_aborted_total", "Sequences ended early, mostly because the client left");
  prometheus::Counter& failed =
      Counter("fastdeploy:request_failed_total", "Sequences that failed in the engine");
  prometheus::Counter& prompt_tokens =
      Counter("fastdeploy:prompt_tokens_total", "Prompt tokens of finished sequences");
  prometheus::Counter& generation_tokens = Counter("fastdeploy:generation_tokens_total", "Tokens generated");
  prometheus::Counter& prefix_cache_tokens =
      Counter("fastdeploy:prefix_cache_token_num_total", "Prompt tokens taken from a cache");

  prometheus::Histogram& first_token = Histogram(
      "fastdeploy:time_to_first_token_seconds", "From the request's arrival to its first token", kFirstToken);
  prometheus::Histogram& per_token =
      Histogram("fastdeploy:time_per_output_token_seconds", "Between two tokens of a sequence", kPerToken);
  prometheus::Histogram& e2e =
      Histogram("fastdeploy:e2e_request_latency_seconds", "From the request's arrival to its end", kLong);
  prometheus::Histogram& inference =
      Histogram("fastdeploy:request_inference_time_seconds", "From the first step to the last token", kLong);
  prometheus::Histogram& queue = Histogram("fastdeploy:request_queue_time_seconds",
                                           "From the end of preprocessing to the first step", kLong);
  prometheus::Histogram& prefill =
      Histogram("fastdeploy:request_prefill_time_seconds", "From the first step to the first token", kLong);
  prometheus::Histogram& decode =
      Histogram("fastdeploy:request_decode_time_seconds", "From the first token to the last", kLong);
  prometheus::Histogram& request_prompt =
      Histogram("fastdeploy:request_prompt_tokens", "Prompt tokens of a sequence", kTokens);
  prometheus::Histogram& request_generation =
      Histogram("fastdeploy:request_generation_tokens", "Tokens generated in a sequence", kTokens);
  prometheus::Histogram& request_max =
      Histogram("fastdeploy:request_params_max_tokens", "The effective max_tokens of a sequence", kTokens);

  prometheus::Counter& pictures =
      Counter("fastdeploy:mm_images_prepared_total", "Pictures decoded, resized and cut into patches");
  prometheus::Counter& videos =
      Counter("fastdeploy:mm_videos_prepared_total", "Videos sampled, resized and cut into patches");
  prometheus::Counter& processor_hits =
      Counter("fastdeploy:mm_processor_cache_hits_total", "Media found prepared in the processor cache");
  prometheus::Counter& processor_misses = Counter("fastdeploy:mm_processor_cache_misses_total",
                                                  "Media looked for in vain in the processor cache");
  prometheus::Histogram& media_fetch = Histogram(
      "fastdeploy:mm_fetch_time_seconds", "Reading a picture or video from an http(s) or file URL", kMedia);
  prometheus::Histogram& image_prepare = Histogram("fastdeploy:mm_image_prepare_time_seconds",
                                                   "Decoding, resizing and cutting a picture", kMedia);
  prometheus::Histogram& video_prepare =
      Histogram("fastdeploy:mm_video_prepare_time_seconds", "Sampling, resizing and cutting a video", kMedia);
  prometheus::Gauge& media_jobs = Gauge("fastdeploy:mm_jobs_in_flight",
                                        "Pictures and videos that are fetched or prepared, or wait for it");
  prometheus::Gauge& media_bytes =
      Gauge("fastdeploy:mm_bytes_in_flight", "Bytes of them that count against --media-memory");

  prometheus::Gauge& running = Gauge("fastdeploy:num_requests_running", "Sequences running");
  prometheus::Gauge& waiting = Gauge("fastdeploy:num_requests_waiting", "Sequences waiting");
  prometheus::Gauge& batch_size = Gauge("fastdeploy:batch_size", "Sequences in the batch");
  prometheus::Gauge& max_batch_size = Gauge("fastdeploy:max_batch_size", "--max-num-seqs");
  prometheus::Gauge& available_batch_size =
      Gauge("fastdeploy:available_batch_size", "Sequences that may still join the batch");
  prometheus::Gauge& cache_usage =
      Gauge("fastdeploy:gpu_cache_usage_perc", "Share of KV pages in use; 1 = full");
  prometheus::Gauge& available_blocks =
      Gauge("fastdeploy:available_gpu_block_num", "KV pages that are free or hold only cached prefixes");
  prometheus::Gauge& free_blocks = Gauge("fastdeploy:free_gpu_block_num", "KV pages that are free");
  prometheus::Gauge& max_blocks = Gauge("fastdeploy:max_gpu_block_num", "KV pages in all");
  prometheus::Gauge& available_resource =
      Gauge("fastdeploy:available_gpu_resource", "available_gpu_block_num / max_gpu_block_num");
  prometheus::Gauge& hit_token_rate =
      Gauge("fastdeploy:hit_token_rate", "Share of prompt tokens taken from a cache");
  prometheus::Gauge& first_token_latency =
      Gauge("fastdeploy:first_token_latency", "The latest time to first token, in seconds");
  prometheus::Gauge& infer_latency =
      Gauge("fastdeploy:infer_latency", "The latest time between two tokens, in seconds");

  prometheus::Counter& encoder_items =
      Counter("fastdeploy:encoder_items_total", "Pictures and pairs of frames encoded");
  prometheus::Counter& encoder_tokens = Counter("fastdeploy:encoder_tokens_total", "Their tokens");
  prometheus::Counter& encoder_seconds =
      Counter("fastdeploy:encoder_seconds_total", "Time spent encoding them");
  prometheus::Counter& encoder_hits =
      Counter("fastdeploy:encoder_cache_hits_total", "Pictures needed and found in the encoder cache");
  prometheus::Counter& encoder_misses =
      Counter("fastdeploy:encoder_cache_misses_total", "Pictures needed and not found in the encoder cache");
  prometheus::Counter& encoder_hit_tokens =
      Counter("fastdeploy:encoder_cache_hit_tokens_total", "Tokens of pictures found in the encoder cache");
  prometheus::Counter& encoder_miss_tokens = Counter("fastdeploy:encoder_cache_miss_tokens_total",
                                                     "Tokens of pictures not found in the encoder cache");
  prometheus::Gauge& encoder_kept =
      Gauge("fastdeploy:encoder_cache_tokens", "Tokens of pictures in the encoder cache");
  prometheus::Gauge& encoder_capacity =
      Gauge("fastdeploy:encoder_cache_capacity_tokens", "Tokens of pictures that the encoder cache can hold");
  std::mutex scrape_mutex;

  prometheus::Family<prometheus::Counter>& http_requests =
      prometheus::BuildCounter().Name("http_requests_total").Help("HTTP responses").Register(registry);
  prometheus::Family<prometheus::Histogram>& http_seconds =
      prometheus::BuildHistogram()
          .Name("http_request_duration_seconds")
          .Help("From the request's arrival to the reply's end")
          .Register(registry);
  // Label lookups are slow in the library; the route table is small, so the children are kept here.
  std::mutex http_mutex;
  std::map<std::tuple<std::string, std::string, int>, prometheus::Counter*> http_counters;
  std::map<std::pair<std::string, std::string>, prometheus::Histogram*> http_histograms;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::RequestReceived() { impl_->requests.Increment(); }

void Metrics::FirstToken(double seconds_since_arrival) {
  impl_->first_token.Observe(seconds_since_arrival);
  impl_->first_token_latency.Set(seconds_since_arrival);
  impl_->generation_tokens.Increment();
}

void Metrics::NextTokens(double seconds, int64_t tokens) {
  if (tokens <= 0) return;
  const double each = seconds / static_cast<double>(tokens);
  for (int64_t i = 0; i < tokens; ++i) impl_->per_token.Observe(each);
  impl_->infer_latency.Set(each);
  impl_->generation_tokens.Increment(static_cast<double>(tokens));
}

void Metrics::SequenceFinished(const SequenceTimes& t, SequenceOutcome outcome) {
  Impl& m = *impl_;
  switch (outcome) {
    case SequenceOutcome::kSuccess:
      m.successes.Increment();
      break;
    case SequenceOutcome::kAborted:
      m.aborted.Increment();
      break;
    case SequenceOutcome::kFailed:
      m.failed.Increment();
      break;
  }
  m.request_max.Observe(static_cast<double>(t.max_tokens));
  m.request_prompt.Observe(static_cast<double>(t.prompt_tokens));
  m.request_generation.Observe(static_cast<double>(t.generated_tokens));
  // A request for its prompt alone has no first token.
  if (Reached(t.first_token_at) || outcome == SequenceOutcome::kSuccess) {
    m.prompt_tokens.Increment(static_cast<double>(t.prompt_tokens));
    m.prefix_cache_tokens.Increment(static_cast<double>(t.cached_tokens));
  }
  if (Reached(t.first_token_at)) {
    m.decode.Observe(Seconds(t.first_token_at, t.last_token_at));
  }
  if (Reached(t.scheduled_at)) {
    m.queue.Observe(Seconds(t.submitted_at, t.scheduled_at));
    if (Reached(t.first_token_at)) {
      m.prefill.Observe(Seconds(t.scheduled_at, t.first_token_at));
      m.inference.Observe(Seconds(t.scheduled_at, t.last_token_at));
    }
  }
  m.e2e.Observe(Seconds(t.arrived_at, Clock::now()));
}

void Metrics::HttpResponse(std::string_view method, std::string_view path, int status, double seconds) {
  Impl& m = *impl_;
  std::lock_guard lock(m.http_mutex);
  auto [counter, is_new] =
      m.http_counters.try_emplace({std::string(method), std::string(path), status}, nullptr);
  if (is_new) {
    counter->second = &m.http_requests.Add({{"method", std::string(method)},
                                            {"path", std::string(path)},
                                            {"status_code", std::to_string(status)}});
  }
  counter->second->Increment();
  auto [histogram, is_first] =
      m.http_histograms.try_emplace({std::string(method), std::string(path)}, nullptr);
  if (is_first) {
    histogram->second =
        &m.http_seconds.Add({{"method", std::string(method)}, {"path", std::string(path)}}, kHttp);
  }
  histogram->second->Observe(seconds);
}

void Metrics::MediaFetched(double seconds) { impl_->media_fetch.Observe(seconds); }

void Metrics::MediaPrepared(bool video, double seconds) {
  (video ? impl_->videos : impl_->pictures).Increment();
  (video ? impl_->video_prepare : impl_->image_prepare).Observe(seconds);
}

void Metrics::ProcessorCacheLookup(bool hit) {
  (hit ? impl_->processor_hits : impl_->processor_misses).Increment();
}

std::string Metrics::Text(const MetricsGauges& g) {
  Impl& m = *impl_;
  std::lock_guard lock(m.scrape_mutex);
  m.media_jobs.Set(static_cast<double>(g.media_jobs));
  m.media_bytes.Set(static_cast<double>(g.media_bytes));
  // The engine counts; what it adds since the last scrape is added here.
  const auto raise = [](prometheus::Counter& counter, double value) {
    if (value > counter.Value()) counter.Increment(value - counter.Value());
  };
  raise(m.encoder_items, static_cast<double>(g.encoded_items));
  raise(m.encoder_tokens, static_cast<double>(g.encoded_tokens));
  raise(m.encoder_seconds, g.encode_seconds);
  raise(m.encoder_hits, static_cast<double>(g.encoder_hits));
  raise(m.encoder_misses, static_cast<double>(g.encoded_items));
  raise(m.encoder_hit_tokens, static_cast<double>(g.encoder_hit_tokens));
  raise(m.encoder_miss_tokens, static_cast<double>(g.encoded_tokens));
  m.encoder_kept.Set(static_cast<double>(g.encoder_kept_tokens));
  m.encoder_capacity.Set(static_cast<double>(g.encoder_capacity_tokens));
  m.running.Set(static_cast<double>(g.running));
  m.waiting.Set(static_cast<double>(g.waiting));
  m.batch_size.Set(static_cast<double>(g.running));
  m.max_batch_size.Set(static_cast<double>(g.max_num_seqs));
  m.available_batch_size.Set(static_cast<double>(g.max_num_seqs - g.running));
  const double total = static_cast<double>(g.total_pages);
  const double available = static_cast<double>(g.free_pages + g.cached_pages);
  m.cache_usage.Set(total > 0 ? static_cast<double>(g.used_pages) / total : 0);
  m.available_blocks.Set(available);
  m.free_blocks.Set(static_cast<double>(g.free_pages));
  m.max_blocks.Set(total);
  m.available_resource.Set(total > 0 ? available / total : 0);
  const double prompt = m.prompt_tokens.Value();
  m.hit_token_rate.Set(prompt > 0 ? m.prefix_cache_tokens.Value() / prompt : 0);
  return prometheus::TextSerializer().Serialize(m.registry.Collect());
}

}  // namespace fd
