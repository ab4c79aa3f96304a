// Runs the plans of a record through an executor and compares what they draw, bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "engine/executor/executor.h"
#include "engine/plan/step_plan.h"
#include "engine/record/record_file.h"

namespace fd {

struct ReplayReport {
  int64_t steps = 0;                 // whose results were compared
  int64_t last_step = -1;            // the number of the last of them
  int64_t tokens = 0;                // drawn tokens, vectors of an engine that pools, scored prompt tokens
  int64_t failed = 0;                // steps that failed when they were recorded
  int64_t differences = 0;           // of tokens; at most one of each
  std::string first_difference;      // step, request, place, and both values
  bool truncated = false;            // the record ends early
  int64_t steps_without_result = 0;  // at its end
  Status damage;                     // not ok: where the record cannot be read any more
};

// Where `here` is another thing than `recorded`: an error when it must match, which names both and says that
// nothing was run; else a sentence for each other difference.
StatusOr<std::vector<std::string>> CompareFacts(const std::vector<RecordFact>& recorded,
                                                const std::vector<RecordFact>& here);

// The first difference between two results of a step, "" where there is none. `tokens`, `differences`: those
// of a ReplayReport are added to.
std::string CompareResults(const StepPlan& plan, const StepResult& recorded, const StepResult& here,
                           int64_t* tokens, int64_t* differences);

// The executor is fresh and was made with the record's options. A failure of the device here, where the
// record had none, is a difference. progress: after each step, how much of the file is done; may be empty.
ReplayReport Replay(RecordReader& record, Executor& executor, const ModelConfig& config,
                    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& progress = {});

}  // namespace fd
