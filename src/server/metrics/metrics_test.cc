#include "server/metrics/metrics.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "server/metrics/process_stats.h"

namespace fd {
namespace {

using std::chrono::milliseconds;

TEST(MetricsTest, GaugesShowTheEngine) {
  Metrics metrics;
  const std::string text = metrics.Text({.running = 3,
                                         .waiting = 2,
                                         .max_num_seqs = 8,
                                         .free_pages = 5,
                                         .cached_pages = 1,
                                         .used_pages = 4,
                                         .total_pages = 10});
  EXPECT_NE(text.find("\nfastdeploy:num_requests_running 3"), std::string::npos) << text;
  EXPECT_NE(text.find("\nfastdeploy:num_requests_waiting 2"), std::string::npos);
  EXPECT_NE(text.find("\nfastdeploy:available_batch_size 5"), std::string::npos);
  EXPECT_NE(text.find("\nfastdeploy:gpu_cache_usage_perc 0.4"), std::string::npos);
  EXPECT_NE(text.find("\nfastdeploy:available_gpu_block_num 6"), std::string::npos);
  EXPECT_NE(text.find("# TYPE fastdeploy:time_to_first_token_seconds histogram"), std::string::npos);
}

// The engine's totals become counters that never fall, whatever the order in which scrapes read them.
TEST(MetricsTest, TheEncoder) {
  Metrics metrics;
  const MetricsGauges later{.encoded_items = 3,
                            .encoded_tokens = 300,
                            .encode_seconds = 1.5,
                            .encoder_hits = 7,
                            .encoder_hit_tokens = 700,
                            .encoder_kept_tokens = 200,
                            .encoder_capacity_tokens = 4096};
  metrics.Text({.encoded_items = 1, .encoded_tokens = 100, .encode_seconds = 0.5});
  metrics.Text(later);
  metrics.Text({.encoded_items = 2, .encoded_tokens = 200});
  const std::string text = metrics.Text(later);
  for (const char* line : {"encoder_items_total 3", "encoder_tokens_total 300", "encoder_seconds_total 1.5",
                           "encoder_cache_hits_total 7", "encoder_cache_hit_tokens_total 700",
                           "encoder_cache_misses_total 3", "encoder_cache_miss_tokens_total 300",
                           "encoder_cache_tokens 200", "encoder_cache_capacity_tokens 4096"}) {
    EXPECT_NE(text.find(std::string("\nfastdeploy:") + line + "\n"), std::string::npos) << line;
  }
}

TEST(MetricsTest, ThePrefixCache) {
  Metrics metrics;
  metrics.Text({.prefix_saved_seconds = 2.5});
  const std::string text = metrics.Text({.prefix_saved_seconds = 1});  // read earlier, comes later
  EXPECT_NE(text.find("\nfastdeploy:prefix_saved_seconds_total 2.5\n"), std::string::npos);
}

TEST(MetricsTest, OneSequence) {
  Metrics metrics;
  metrics.RequestReceived();
  const auto t0 = Clock::now() - milliseconds(1000);
  metrics.FirstToken(0.3, 40, 10, 4);
  metrics.NextTokens(0.2, 2);
  metrics.SequenceFinished({.arrived_at = t0,
                            .submitted_at = t0 + milliseconds(10),
                            .scheduled_at = t0 + milliseconds(20),
                            .first_token_at = t0 + milliseconds(300),
                            .last_token_at = t0 + milliseconds(500),
                            .prompt_tokens = 40,
                            .generated_tokens = 3,
                            .max_tokens = 16,
                            .cached_tokens = 10},
                           SequenceOutcome::kSuccess);
  const std::string text = metrics.Text({});
  EXPECT_NE(text.find("fastdeploy:requests_number_total 1"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:request_success_total 1"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:generation_tokens_total 3"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:prompt_tokens_total 40"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:hit_token_rate 0.25"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:hit_req_rate 1\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:prefix_cache_token_num_total 10\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:prefix_gpu_cache_token_num_total 6\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:prefix_cpu_cache_token_num_total 4\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:gpu_hit_token_rate 0.15\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:cpu_hit_token_rate 0.1\n"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:request_token_ratio_sum 6.25\n"), std::string::npos);  // 3 in 0.48 s
  EXPECT_NE(text.find("fastdeploy:time_to_first_token_seconds_bucket{le=\"0.25\"} 0"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:time_to_first_token_seconds_bucket{le=\"0.5\"} 1"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:time_per_output_token_seconds_count 2"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:request_decode_time_seconds_count 1"), std::string::npos);
}

TEST(MetricsTest, NamesOfVllm) {
  Metrics metrics;
  const auto name_it = [&](MetricNames names) {
    metrics.SetInfo({.names = names,
                     .model_name = "a \"b\"\n",
                     .page_tokens = 64,
                     .cache_dtype = "bfloat16",
                     .memory_share = 0.9});
  };
  name_it(MetricNames::kVllm);
  metrics.RequestReceived(2);
  for (const SequenceOutcome outcome : {SequenceOutcome::kSuccess, SequenceOutcome::kLength,
                                        SequenceOutcome::kLength, SequenceOutcome::kAborted}) {
    metrics.SequenceFinished({.arrived_at = Clock::now()}, outcome);
  }
  metrics.RequestFinished(7);
  MetricsGauges gauges{.running = 3, .total_pages = 10, .preemptions = 5};
  gauges.step_sizes.Add(1);
  gauges.step_sizes.Add(40);
  gauges.step_sizes.Add(70000);
  std::string text = metrics.Text(gauges);
  const std::string labels = "{model_name=\"a \\\"b\\\"\\n\",engine=\"0\"";
  for (const std::string& line :
       {"num_requests_running" + labels + "} 3", "num_preemptions_total" + labels + "} 5",
        "request_success_total" + labels + ",finished_reason=\"stop\"} 1",
        "request_success_total" + labels + ",finished_reason=\"length\"} 2",
        "request_success_total" + labels + ",finished_reason=\"abort\"} 1",
        "request_success_total" + labels + ",finished_reason=\"error\"} 0",
        "request_params_n_sum" + labels + "} 2", "request_max_num_generation_tokens_sum" + labels + "} 7",
        "iteration_tokens_total_count" + labels + "} 3", "iteration_tokens_total_sum" + labels + "} 70041",
        "iteration_tokens_total_bucket" + labels + ",le=\"1\"} 1",
        "iteration_tokens_total_bucket" + labels + ",le=\"65536\"} 2",
        "iteration_tokens_total_bucket" + labels + ",le=\"+Inf\"} 3"}) {
    EXPECT_NE(text.find("\nvllm:" + line + "\n"), std::string::npos) << line << "\n" << text;
  }
  EXPECT_NE(text.find(",num_gpu_blocks=\"10\",num_cpu_blocks=\"0\",kv_cache_size_tokens=\"640\"} 1\n"),
            std::string::npos)
      << text;
  EXPECT_EQ(text.find("fastdeploy:"), std::string::npos);
  EXPECT_NE(text.find("\nprocess_open_fds "), std::string::npos);

  // A scrape that read the engine earlier but comes later takes nothing back.
  text = metrics.Text({});
  EXPECT_NE(text.find("iteration_tokens_total_count" + labels + "} 3\n"), std::string::npos);

  name_it(MetricNames::kBoth);
  text = metrics.Text(gauges);
  EXPECT_NE(text.find("\nfastdeploy:num_requests_running 3\n"), std::string::npos);
  EXPECT_NE(text.find("\nvllm:num_requests_running{"), std::string::npos);
  name_it(MetricNames::kFastDeploy);
  text = metrics.Text(gauges);
  EXPECT_EQ(text.find("vllm:"), std::string::npos);
  EXPECT_NE(
      text.find("fastdeploy:cache_config_info{block_size=\"64\",cache_dtype=\"bfloat16\","
                "gpu_memory_utilization=\"0.9\",enable_prefix_caching=\"False\",total_block_num=\"10\""),
      std::string::npos)
      << text;
}

TEST(MetricsTest, TheProcess) {
  const ProcessStats stats = ReadProcessStats();
  EXPECT_GT(stats.resident_bytes, 1 << 20);
  EXPECT_GE(stats.virtual_bytes, stats.resident_bytes);
  EXPECT_GE(stats.open_files, 3);
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  EXPECT_NEAR(stats.start_unix_s, now, 600);
  EXPECT_LE(stats.start_unix_s, now + 2);
  EXPECT_GE(stats.cpu_seconds, 0);
}

// A sequence that left before its first step must not reach the histograms of phases it never saw.
TEST(MetricsTest, AbortedWhileWaiting) {
  Metrics metrics;
  const auto t0 = Clock::now();
  metrics.SequenceFinished({.arrived_at = t0, .submitted_at = t0, .prompt_tokens = 5, .max_tokens = 7},
                           SequenceOutcome::kAborted);
  const std::string text = metrics.Text({});
  EXPECT_NE(text.find("fastdeploy:request_aborted_total 1"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:request_queue_time_seconds_count 0"), std::string::npos);
  EXPECT_NE(text.find("fastdeploy:prompt_tokens_total 0"), std::string::npos);
}

TEST(MetricsTest, HttpLabelsFromManyThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) metrics.HttpResponse("GET", "/health", 200, 0.001);
    });
  }
  for (auto& t : threads) t.join();
  const std::string text = metrics.Text({});
  EXPECT_NE(text.find("http_requests_total{method=\"GET\",path=\"/health\",status_code=\"200\"} 400"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace fd
