// One line of JSON for each step, into a file: for finding out why a server is slow, and for tests. Numbers
// ascend; turns of the loop without work have one too and no line. Engine thread.
//
// {"step":7,"time":1735689600.123,"tokens":384,"outputs":2,"sequences":3,"decodes":2,"prefills":1,"waiting":0,
//  "encoded_items":1,"encoded_tokens":256,"encoder_hits":0,"encoder_hit_tokens":0,
//  "prefix_query_tokens":1200,"prefix_hit_tokens":1150,"page_copies":1,"prefix_host_hit_tokens":640,
//  "pages_out":0,"pages_in":10,"kept_tokens":1024,
//  "encode_ms":3.210,"device_ms":0.000,"wall_ms":12.345,"ok":true}
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/status.h"
#include "engine/plan/step_plan.h"

namespace fd {

class StepLog {
 public:
  // Truncates the file. The error names it and the operating system's reason.
  static StatusOr<std::unique_ptr<StepLog>> Open(const std::string& path);
  ~StepLog();  // writes what is left
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  // waiting: requests without a place. Kept in memory until Flush or until enough has come together.
  void Add(const StepPlan& plan, const StepResult& result, int64_t waiting);
  // When the loop has nothing else to do. A file that cannot be written is one warning, then silence.
  void Flush();

 private:
  StepLog(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  const std::string path_;
  std::FILE* file_;  // null once writing has failed
  int64_t written_bytes_ = 0;
  std::string lines_;
};

}  // namespace fd
