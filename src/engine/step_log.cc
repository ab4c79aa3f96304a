#include "engine/step_log.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/fault.h"
#include "base/log.h"
#include "base/log_sink.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr size_t kFlushBytes = size_t{64} << 10;

}  // namespace

StatusOr<std::unique_ptr<StepLog>> StepLog::Open(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) {
    return InvalidArgument(
        StrCat("cannot write to ", path, ": ", std::strerror(errno),
               "; give a file in a folder that exists, for example --step-log steps.jsonl"),
        "--step-log");
  }
  return std::unique_ptr<StepLog>(new StepLog(path, file));
}

StepLog::~StepLog() {
  Flush();
  if (file_ != nullptr) std::fclose(file_);
}

void StepLog::Add(const StepPlan& plan, const StepResult& result, int64_t waiting) {
  if (file_ == nullptr) return CountLostLines(1);
  const double unix_s =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const double wall_ms = std::chrono::duration<double, std::milli>(Clock::now() - plan.begun_at).count();
  const size_t sequences = plan.sequences.size();
  const PageMoveCounts moves = CountMoves(plan.page_moves);
  lines_ += StrCat(
      "{\"step\":", plan.step, ",\"time\":", Fixed(unix_s, 3), ",\"tokens\":", plan.num_tokens,
      ",\"outputs\":", plan.num_outputs, ",\"sequences\":", sequences, ",\"decodes\":", plan.num_decodes,
      ",\"prefills\":", static_cast<int64_t>(sequences) - plan.num_decodes, ",\"waiting\":", waiting,
      ",\"encoded_items\":", plan.encodes.size(), ",\"encoded_tokens\":", plan.encode_tokens,
      ",\"encoder_hits\":", plan.encoder_hits, ",\"encoder_hit_tokens\":", plan.encoder_hit_tokens,
      ",\"prefix_query_tokens\":", plan.prefix_query_tokens,
      ",\"prefix_hit_tokens\":", plan.prefix_hit_tokens, ",\"page_copies\":", moves.copies,
      ",\"prefix_host_hit_tokens\":", plan.prefix_host_hit_tokens, ",\"pages_out\":", moves.out,
      ",\"pages_in\":", moves.in, ",\"kept_tokens\":", plan.encoder_kept_tokens,
      ",\"encode_ms\":", Fixed(result.encode_ms, 3), ",\"device_ms\":", Fixed(result.device_ms, 3),
      ",\"wall_ms\":", Fixed(wall_ms, 3), ",\"ok\":", result.status.ok(), "}\n");
  if (lines_.size() >= kFlushBytes) Flush();
}

void StepLog::Flush() {
  if (file_ == nullptr || lines_.empty()) return;
  const bool full = FaultHits(Fault::kStepLogDiskFull);
  if (full) errno = ENOSPC;
  if (full || std::fwrite(lines_.data(), 1, lines_.size(), file_) != lines_.size() ||
      std::fflush(file_) != 0) {
    LogWarning("--step-log ", path_, ": ", static_cast<const char*>(std::strerror(errno)),
               "; no more steps are written, serving goes on");
    CountLostLines(std::count(lines_.begin(), lines_.end(), '\n'));
    // No part of a line stays.
    [[maybe_unused]] const int cut = ::ftruncate(::fileno(file_), written_bytes_);
    std::fclose(file_);
    file_ = nullptr;
  } else {
    written_bytes_ += static_cast<int64_t>(lines_.size());
  }
  lines_.clear();
}

}  // namespace fd
