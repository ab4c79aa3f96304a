#include "server/metrics/metric_table.h"

#include <array>

#include "engine/plan/step_sizes.h"

namespace fd {
namespace {

// FastDeploy's bounds; they go on where its own end, as vLLM's do: a picture's first token and a step of a
// long prompt take longer than a second.
constexpr double kFirstTokenBounds[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                        1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
constexpr double kPerTokenBounds[] = {.001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                                      .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80};
constexpr double kLongBounds[] = {.01, .03, .1, .3, .5, .8, 1,   1.5, 2,   2.5, 5,    10,
                                  15,  20,  30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
constexpr double kTokenBounds[] = {1,    2,    5,    10,    20,    50,    100,    200,    500,
                                   1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000};
constexpr double kRateBounds[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};
constexpr double kChoiceBounds[] = {1, 2, 5, 10, 20, 50, 100, 200};
constexpr double kMediaBounds[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                   .5,   1,     2.5,  5,   10,   30,  60, 120};
constexpr double kHttpBounds[] = {.01, .025, .05, .1, .25, .5, .75, 1,  1.5, 2,   2.5, 3,
                                  3.5, 4,    4.5, 5,  7.5, 10, 30,  60, 120, 300, 600, 1800};

using enum Series;
constexpr MetricKind kC = MetricKind::kCounter, kG = MetricKind::kGauge, kH = MetricKind::kHistogram;
using B = BucketList;

constexpr const char* kNoStorage =
    "0: the key/value cache outside the memory of this machine is still to come";

constexpr MetricRow kRows[] = {
    {"fastdeploy:requests_number_total", kRequests, kC, B::kNone, "", "Requests received"},
    {"fastdeploy:request_success_total", kSuccesses, kC, B::kNone, "", "Sequences that finished well"},
    {"fastdeploy:request_aborted_total", kAborted, kC, B::kNone, "",
     "Sequences ended early, mostly because the client left"},
    {"fastdeploy:request_failed_total", kFailed, kC, B::kNone, "", "Sequences that failed in the engine"},
    {"fastdeploy:request_preempted_total", kPreemptions, kC, B::kNone, "",
     "Times that a running sequence gave its KV pages to an older one"},
    {"fastdeploy:slow_steps_total", kSlowSteps, kC, B::kNone, "",
     "Steps that took more than a quarter of --step-timeout"},
    {"fastdeploy:lost_log_lines_total", kLostLogLines, kC, B::kNone, "",
     "Lines that standard error, --log-dir or --step-log did not take: a full disk, a reader that stopped"},
    {"fastdeploy:num_requests_running", kRunning, kG, B::kNone, "", "Sequences running"},
    {"fastdeploy:num_requests_waiting", kWaiting, kG, B::kNone, "", "Sequences waiting"},
    {"fastdeploy:num_requests_enqueued", kWaiting, kG, B::kNone, "", "The same; there is one queue"},
    {"fastdeploy:num_requests_preempted", kPreempted, kG, B::kNone, "",
     "Sequences waiting to be computed again"},
    {"fastdeploy:time_to_first_token_seconds", kFirstToken, kH, B::kFirstToken, "",
     "From the request's arrival to its first token"},
    {"fastdeploy:time_per_output_token_seconds", kPerToken, kH, B::kPerToken, "",
     "Between two tokens of a sequence"},
    {"fastdeploy:e2e_request_latency_seconds", kEndToEnd, kH, B::kLong, "",
     "From the request's arrival to its end"},
    {"fastdeploy:request_inference_time_seconds", kInference, kH, B::kLong, "",
     "From the first step to the last token"},
    {"fastdeploy:request_queue_time_seconds", kQueue, kH, B::kLong, "",
     "From the end of preprocessing to the first step"},
    {"fastdeploy:request_prefill_time_seconds", kPrefill, kH, B::kLong, "",
     "From the first step to the first token"},
    {"fastdeploy:request_decode_time_seconds", kDecode, kH, B::kLong, "", "From the first token to the last"},
    {"fastdeploy:prompt_tokens_total", kPromptTokens, kC, B::kNone, "",
     "Prompt tokens of sequences, at their first token"},
    {"fastdeploy:generation_tokens_total", kGenerationTokens, kC, B::kNone, "", "Tokens generated"},
    {"fastdeploy:request_prompt_tokens", kRequestPrompt, kH, B::kTokens, "", "Prompt tokens of a sequence"},
    {"fastdeploy:request_generation_tokens", kRequestGeneration, kH, B::kTokens, "",
     "Tokens generated in a sequence"},
    {"fastdeploy:request_params_max_tokens", kRequestMaxTokens, kH, B::kTokens, "",
     "The effective max_tokens of a sequence"},
    {"fastdeploy:request_token_ratio", kRequestRate, kH, B::kRate, "",
     "Tokens a second of a sequence, from its first step to its last token"},
    {"fastdeploy:batch_size", kRunning, kG, B::kNone, "", "Sequences in the batch"},
    {"fastdeploy:max_batch_size", kMaxBatch, kG, B::kNone, "", "--max-num-seqs"},
    {"fastdeploy:available_batch_size", kFreeBatch, kG, B::kNone, "",
     "Sequences that may still join the batch"},
    {"fastdeploy:cache_config_info", kCacheInfo, kG, B::kNone, "",
     "1; its labels are the KV cache's settings"},
    {"fastdeploy:gpu_cache_usage_perc", kCacheUsage, kG, B::kNone, "", "Share of KV pages in use; 1 = full"},
    {"fastdeploy:available_gpu_block_num", kAvailablePages, kG, B::kNone, "",
     "KV pages that are free or hold only cached prefixes"},
    {"fastdeploy:free_gpu_block_num", kFreePages, kG, B::kNone, "", "KV pages that are free"},
    {"fastdeploy:max_gpu_block_num", kMaxPages, kG, B::kNone, "", "KV pages in all"},
    {"fastdeploy:free_cpu_block_num", kFreeHostPages, kG, B::kNone, "",
     "Pages of --swap-space that are free"},
    {"fastdeploy:max_cpu_block_num", kMaxHostPages, kG, B::kNone, "", "Pages of --swap-space in all"},
    {"fastdeploy:available_gpu_resource", kAvailableShare, kG, B::kNone, "",
     "available_gpu_block_num / max_gpu_block_num"},
    {"fastdeploy:hit_req_rate", kHitRequestRate, kG, B::kNone, "",
     "Share of sequences with prompt tokens from the prefix cache"},
    {"fastdeploy:hit_token_rate", kHitTokenRate, kG, B::kNone, "",
     "Share of prompt tokens from the prefix cache"},
    {"fastdeploy:gpu_hit_token_rate", kDeviceHitTokenRate, kG, B::kNone, "",
     "Share of prompt tokens from the prefix cache in the device's memory"},
    {"fastdeploy:cpu_hit_token_rate", kHostHitTokenRate, kG, B::kNone, "",
     "Share of prompt tokens from the prefix cache in --swap-space"},
    {"fastdeploy:prefix_cache_token_num_total", kCachedTokens, kC, B::kNone, "",
     "Prompt tokens from the prefix cache"},
    {"fastdeploy:prefix_gpu_cache_token_num_total", kCachedDeviceTokens, kC, B::kNone, "",
     "Of them, those in the device's memory"},
    {"fastdeploy:prefix_cpu_cache_token_num_total", kCachedHostTokens, kC, B::kNone, "",
     "Of them, those in --swap-space"},
    {"fastdeploy:prefix_ssd_cache_token_num_total", kZeroCounter, kC, B::kNone, "", kNoStorage},
    {"fastdeploy:prefix_storage_cache_token_num_total", kZeroCounter, kC, B::kNone, "", kNoStorage},
    {"fastdeploy:prefix_saved_seconds_total", kPrefixSavedSeconds, kC, B::kNone, "",
     "Seconds of computing prompts that the prefix cache saved: tokens found times the mean time of a "
     "computed one, less moving pages in"},
    {"fastdeploy:prefix_cpu_saved_seconds_total", kPrefixHostSavedSeconds, kC, B::kNone, "",
     "Of them, those that tokens in --swap-space saved"},
    {"fastdeploy:swap_out_block_num_total", kPagesMovedOut, kC, B::kNone, "",
     "KV pages moved to --swap-space"},
    {"fastdeploy:swap_in_block_num_total", kPagesMovedIn, kC, B::kNone, "",
     "KV pages moved or copied back from there"},
    {"fastdeploy:recording", kRecording, kG, B::kNone, "",
     "1 while steps are written to the file of --record; 0 without it and once it cannot be written"},
    {"fastdeploy:recorded_bytes_total", kRecordedBytes, kC, B::kNone, "",
     "Bytes written to the file of --record"},
    {"fastdeploy:send_cache_failed_num_total", kZeroCounter, kC, B::kNone, "",
     "0: no cache is sent to another process"},
    {"fastdeploy:first_token_latency", kFirstTokenLatency, kG, B::kNone, "",
     "The latest time to first token, in seconds"},
    {"fastdeploy:infer_latency", kInferLatency, kG, B::kNone, "",
     "The latest time between two tokens, in seconds"},

    {"fastdeploy:mm_images_prepared_total", kPictures, kC, B::kNone, "",
     "Pictures decoded, resized and cut into patches"},
    {"fastdeploy:mm_videos_prepared_total", kVideos, kC, B::kNone, "",
     "Videos sampled, resized and cut into patches"},
    {"fastdeploy:mm_processor_cache_hits_total", kProcessorHits, kC, B::kNone, "",
     "Media found prepared in the processor cache"},
    {"fastdeploy:mm_processor_cache_misses_total", kProcessorMisses, kC, B::kNone, "",
     "Media looked for in vain in the processor cache"},
    {"fastdeploy:mm_fetch_time_seconds", kMediaFetch, kH, B::kMedia, "",
     "Reading a picture or video from an http(s) or file URL"},
    {"fastdeploy:mm_image_prepare_time_seconds", kImagePrepare, kH, B::kMedia, "",
     "Decoding, resizing and cutting a picture"},
    {"fastdeploy:mm_video_prepare_time_seconds", kVideoPrepare, kH, B::kMedia, "",
     "Sampling, resizing and cutting a video"},
    {"fastdeploy:mm_jobs_in_flight", kMediaJobs, kG, B::kNone, "",
     "Pictures and videos that are fetched or prepared, or wait for it"},
    {"fastdeploy:mm_bytes_in_flight", kMediaBytes, kG, B::kNone, "",
     "Bytes of them that count against --media-memory"},
    {"fastdeploy:encoder_items_total", kEncoderItems, kC, B::kNone, "",
     "Pictures and pairs of frames encoded"},
    {"fastdeploy:encoder_tokens_total", kEncoderTokens, kC, B::kNone, "", "Their tokens"},
    {"fastdeploy:encoder_seconds_total", kEncoderSeconds, kC, B::kNone, "", "Time spent encoding them"},
    {"fastdeploy:encoder_cache_hits_total", kEncoderHits, kC, B::kNone, "",
     "Pictures needed and found in the encoder cache"},
    {"fastdeploy:encoder_cache_misses_total", kEncoderMisses, kC, B::kNone, "",
     "Pictures needed and not found in the encoder cache"},
    {"fastdeploy:encoder_cache_hit_tokens_total", kEncoderHitTokens, kC, B::kNone, "",
     "Tokens of pictures found in the encoder cache"},
    {"fastdeploy:encoder_cache_miss_tokens_total", kEncoderMissTokens, kC, B::kNone, "",
     "Tokens of pictures not found in the encoder cache"},
    {"fastdeploy:encoder_cache_tokens", kEncoderKept, kG, B::kNone, "",
     "Tokens of pictures in the encoder cache"},
    {"fastdeploy:encoder_cache_capacity_tokens", kEncoderCapacity, kG, B::kNone, "",
     "Tokens of pictures that the encoder cache can hold"},

    {"vllm:num_requests_running", kRunning, kG, B::kNone, "", "Sequences running"},
    {"vllm:num_requests_waiting", kWaiting, kG, B::kNone, "", "Sequences waiting"},
    {"vllm:kv_cache_usage_perc", kCacheUsage, kG, B::kNone, "", "Share of KV pages in use; 1 = full"},
    {"vllm:gpu_cache_usage_perc", kCacheUsage, kG, B::kNone, "", "The older name of kv_cache_usage_perc"},
    {"vllm:cache_config_info", kCacheInfo, kG, B::kNone, "", "1; its labels are the KV cache's settings"},
    {"vllm:prefix_cache_queries_total", kPromptTokens, kC, B::kNone, "",
     "Prompt tokens that were looked for in the prefix cache"},
    {"vllm:gpu_prefix_cache_queries_total", kPromptTokens, kC, B::kNone, "",
     "The older name of prefix_cache_queries_total"},
    {"vllm:prefix_cache_hits_total", kCachedTokens, kC, B::kNone, "", "Prompt tokens from the prefix cache"},
    {"vllm:gpu_prefix_cache_hits_total", kCachedTokens, kC, B::kNone, "",
     "The older name of prefix_cache_hits_total"},
    {"vllm:prompt_tokens_cached_total", kCachedTokens, kC, B::kNone, "", "The same"},
    {"vllm:mm_cache_queries_total", kProcessorQueries, kC, B::kNone, "",
     "Media looked for in the processor cache"},
    {"vllm:mm_cache_hits_total", kProcessorHits, kC, B::kNone, "",
     "Media found prepared in the processor cache"},
    {"vllm:num_preemptions_total", kPreemptions, kC, B::kNone, "",
     "Times that a running sequence gave its KV pages to an older one"},
    {"vllm:prompt_tokens_total", kPromptTokens, kC, B::kNone, "",
     "Prompt tokens of sequences, at their first token"},
    {"vllm:generation_tokens_total", kGenerationTokens, kC, B::kNone, "", "Tokens generated"},
    {"vllm:request_success_total", kStopped, kC, B::kNone, "finished_reason=stop",
     "Sequences that ended, by the reason"},
    {"vllm:request_success_total", kLengths, kC, B::kNone, "finished_reason=length", ""},
    {"vllm:request_success_total", kAborted, kC, B::kNone, "finished_reason=abort", ""},
    {"vllm:request_success_total", kFailed, kC, B::kNone, "finished_reason=error", ""},
    {"vllm:request_prompt_tokens", kRequestPrompt, kH, B::kTokens, "", "Prompt tokens of a sequence"},
    {"vllm:request_prefill_kv_computed_tokens", kRequestComputed, kH, B::kTokens, "",
     "Prompt tokens of a sequence that came from no cache"},
    {"vllm:request_generation_tokens", kRequestGeneration, kH, B::kTokens, "",
     "Tokens generated in a sequence"},
    {"vllm:request_max_num_generation_tokens", kRequestMaxGeneration, kH, B::kTokens, "",
     "Tokens of the longest sequence of a request"},
    {"vllm:request_params_n", kRequestChoices, kH, B::kChoices, "", "Sequences of a request"},
    {"vllm:request_params_max_tokens", kRequestMaxTokens, kH, B::kTokens, "",
     "The effective max_tokens of a sequence"},
    {"vllm:iteration_tokens_total", kStepTokens, kH, B::kSteps, "", "Tokens of a step"},
    {"vllm:time_to_first_token_seconds", kFirstToken, kH, B::kFirstToken, "",
     "From the request's arrival to its first token"},
    {"vllm:inter_token_latency_seconds", kPerToken, kH, B::kPerToken, "", "Between two tokens of a sequence"},
    {"vllm:time_per_output_token_seconds", kPerToken, kH, B::kPerToken, "",
     "The older name of inter_token_latency_seconds"},
    {"vllm:request_time_per_output_token_seconds", kMeanPerToken, kH, B::kPerToken, "",
     "The mean time between two tokens, of each sequence"},
    {"vllm:e2e_request_latency_seconds", kEndToEnd, kH, B::kLong, "",
     "From the request's arrival to its end"},
    {"vllm:request_queue_time_seconds", kQueue, kH, B::kLong, "",
     "From the end of preprocessing to the first step"},
    {"vllm:request_inference_time_seconds", kInference, kH, B::kLong, "",
     "From the first step to the last token"},
    {"vllm:request_prefill_time_seconds", kPrefill, kH, B::kLong, "",
     "From the first step to the first token"},
    {"vllm:request_decode_time_seconds", kDecode, kH, B::kLong, "", "From the first token to the last"},

    {"http_requests_total", kHttpRequests, kC, B::kNone, "", "HTTP replies, by method, path and status_code"},
    {"http_request_duration_seconds", kHttpSeconds, kH, B::kHttp, "",
     "From the request's arrival to the reply's end, by method and path"},
    {"process_cpu_seconds_total", kCpuSeconds, kC, B::kNone, "", "CPU time of the process"},
    {"process_resident_memory_bytes", kResidentBytes, kG, B::kNone, "", "Memory in use"},
    {"process_virtual_memory_bytes", kVirtualBytes, kG, B::kNone, "", "Address space"},
    {"process_open_fds", kOpenFiles, kG, B::kNone, "", "Open file descriptors"},
    {"process_max_fds", kMaxFiles, kG, B::kNone, "", "File descriptors that may be open"},
    {"process_start_time_seconds", kStartTime, kG, B::kNone, "", "Start, in seconds since 1970"},
};

constexpr auto kStepBounds = [] {
  std::array<double, StepSizes::kBounds.size()> bounds{};
  for (size_t i = 0; i < bounds.size(); ++i) bounds[i] = static_cast<double>(StepSizes::kBounds[i]);
  return bounds;
}();

}  // namespace

std::span<const double> BucketsOf(BucketList list) {
  switch (list) {
    case BucketList::kNone:
      return {};
    case BucketList::kFirstToken:
      return kFirstTokenBounds;
    case BucketList::kPerToken:
      return kPerTokenBounds;
    case BucketList::kLong:
      return kLongBounds;
    case BucketList::kTokens:
      return kTokenBounds;
    case BucketList::kRate:
      return kRateBounds;
    case BucketList::kChoices:
      return kChoiceBounds;
    case BucketList::kSteps:
      return kStepBounds;
    case BucketList::kMedia:
      return kMediaBounds;
    case BucketList::kHttp:
      return kHttpBounds;
  }
  return {};
}

std::span<const MetricRow> MetricTable() { return kRows; }

}  // namespace fd
