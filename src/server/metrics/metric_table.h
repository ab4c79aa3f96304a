// Every name of /metrics, in one table: the text, its test and docs/COMPATIBILITY.md come from it.
#pragma once

#include <span>
#include <string_view>
#include <vector>

namespace fd {

// What is counted. Several names may show the same.
enum class Series {
  // Counters.
  kRequests,
  kSuccesses,
  kStopped,
  kLengths,
  kAborted,
  kFailed,
  kPreemptions,
  kPromptTokens,
  kGenerationTokens,
  kCachedTokens,
  kCachedDeviceTokens,
  kCachedHostTokens,
  kPrefixSavedSeconds,
  kPrefixHostSavedSeconds,
  kPagesMovedOut,
  kPagesMovedIn,
  kRecordedBytes,
  kSlowSteps,
  kLostLogLines,
  kPictures,
  kVideos,
  kProcessorHits,
  kProcessorMisses,
  kProcessorQueries,
  kEncoderItems,
  kEncoderTokens,
  kEncoderSeconds,
  kEncoderHits,
  kEncoderMisses,
  kEncoderHitTokens,
  kEncoderMissTokens,
  kZeroCounter,  // what this version has not: its rows say why
  // Gauges.
  kRunning,
  kWaiting,
  kPreempted,
  kMaxBatch,
  kFreeBatch,
  kCacheUsage,
  kAvailablePages,
  kFreePages,
  kMaxPages,
  kFreeHostPages,
  kMaxHostPages,
  kAvailableShare,
  kHitRequestRate,
  kHitTokenRate,
  kDeviceHitTokenRate,
  kHostHitTokenRate,
  kFirstTokenLatency,
  kInferLatency,
  kCacheInfo,  // 1, with labels
  kRecording,
  kMediaJobs,
  kMediaBytes,
  kEncoderKept,
  kEncoderCapacity,
  // Histograms.
  kFirstToken,
  kPerToken,
  kMeanPerToken,
  kEndToEnd,
  kInference,
  kQueue,
  kPrefill,
  kDecode,
  kRequestPrompt,
  kRequestComputed,
  kRequestGeneration,
  kRequestMaxGeneration,
  kRequestMaxTokens,
  kRequestChoices,
  kRequestRate,
  kStepTokens,
  kMediaFetch,
  kImagePrepare,
  kVideoPrepare,
  // By method and path.
  kHttpRequests,
  kHttpSeconds,
  // Of the process.
  kCpuSeconds,
  kResidentBytes,
  kVirtualBytes,
  kOpenFiles,
  kMaxFiles,
  kStartTime,
  kCount
};

enum class MetricKind { kCounter, kGauge, kHistogram };

enum class BucketList {
  kNone,
  kFirstToken,
  kPerToken,
  kLong,
  kTokens,
  kRate,
  kChoices,
  kSteps,
  kMedia,
  kHttp
};
// Upper bounds, ascending. Of kSteps they are StepSizes::kBounds.
std::span<const double> BucketsOf(BucketList list);

struct MetricRow {
  // As it is written. "fastdeploy:" and "vllm:" stand under --metrics-names; others are always there.
  const char* name;
  Series series;
  MetricKind kind;
  BucketList buckets;
  const char* label;  // "finished_reason=stop", or "" for none; vllm: names have model_name and engine too
  const char* help;
};
// Rows of one name follow each other.
std::span<const MetricRow> MetricTable();

}  // namespace fd
