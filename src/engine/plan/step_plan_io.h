// Plans, results, pictures and limits as bytes, for records of what an engine computed (engine/record). Every
// field that an executor reads is written; a field that is added to one of the structs does not compile until
// step_plan_io.cc names it.
//
// Reading takes any bytes: an error, or values of the right kinds, whose memory is in proportion to the
// bytes. Whether an executor may be handed the plan, record/plan_check.h says.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"

namespace fd {

// Plans follow each other: of a block table stands only what is new since the plan before, where the request
// was in that. So plans are read in the order in which they were written, by one reader.
class BlockTableHistory {
 public:
  std::vector<int32_t>& Of(RequestId id);
  // Forgets who was not in this plan.
  void EndPlan();

 private:
  struct Entry {
    std::vector<int32_t> pages;
    uint64_t plan = 0;
  };
  std::unordered_map<RequestId, Entry> entries_;
  uint64_t plan_ = 1;
};

class PlanWriter {
 public:
  // Appends to *out. Pictures are named by their content hash.
  void Write(const StepPlan& plan, std::string* out);

 private:
  BlockTableHistory tables_;
};

class PlanReader {
 public:
  // Null: there is no such picture.
  using MediaOf = std::function<std::shared_ptr<const MediaItem>(const Hash128& content_hash)>;

  // A plan with more sequences or longer block tables than these limits allow is an error.
  PlanReader(const EngineOptions& limits, MediaOf media_of)
      : max_sequences_(limits.MaxStepSequences()),
        max_pages_(PagesForTokens(limits.max_model_len)),
        media_of_(std::move(media_of)) {}
  StatusOr<StepPlan> Read(std::string_view bytes);

 private:
  const int64_t max_sequences_, max_pages_;
  const MediaOf media_of_;
  BlockTableHistory tables_;
};

// Times are left out: they differ from run to run.
void WriteResult(const StepResult& result, std::string* out);
StatusOr<StepResult> ReadResult(std::string_view bytes);

void WriteMedia(const MediaItem& item, std::string* out);
StatusOr<MediaItem> ReadMedia(std::string_view bytes);

void WriteOptions(const EngineOptions& options, std::string* out);
StatusOr<EngineOptions> ReadOptions(std::string_view bytes);

}  // namespace fd
