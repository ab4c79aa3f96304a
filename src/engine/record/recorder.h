// Writes a record (record_file.h) while an engine runs. The engine thread makes the bytes of plans and
// results; a thread of its own writes them at once, so that a program that dies in a step has left that
// step's plan behind. Pictures are made into bytes by that thread too.
//
// A file that cannot be written any more is one warning; serving goes on, and the file is cut behind the last
// result that stands in it whole. A disk that is slower than the engine makes it wait once kMaxBehindBytes
// are not written; after kMaxWait in one step recording stops too.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "engine/plan/step_plan.h"
#include "engine/plan/step_plan_io.h"
#include "engine/record/record_file.h"

namespace fd {

class Recorder {
 public:
  static constexpr int64_t kMaxBehindBytes = int64_t{256} << 20;
  static constexpr std::chrono::seconds kMaxWait{1};

  // A new file that only its owner may read, since it will hold prompts; a file that is there is left alone.
  // Errors name the path, the operating system's reason and --record.
  static StatusOr<std::unique_ptr<Recorder>> Create(const std::string& path);
  // Writes what is left, and that the record is whole. A file in which nothing was begun is removed.
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  // Once, before the others.
  void Begin(const RecordHeader& header);
  // Engine thread: each plan with sequences before it is launched, each result when it was waited for.
  void AddPlan(const StepPlan& plan);
  void AddResult(const StepResult& result);

  // Any thread.
  bool recording() const { return !stopped_; }
  // Up to the last result: where the file ends should recording stop now.
  int64_t written_bytes() const { return whole_bytes_; }
  const std::string& path() const { return path_; }

 private:
  // A framed record, or a picture that is made into one when it is written.
  struct Piece {
    RecordKind kind;
    std::string bytes;
    std::shared_ptr<const MediaItem> item;
    int64_t step = -1;  // of a result
  };
  Recorder(std::string path, int file) : path_(std::move(path)), file_(file) {}
  static int64_t BytesOf(const Piece& piece);
  void Add(Piece piece);
  void WriteLoop();
  bool WritePiece(const Piece& piece);
  bool Write(std::string_view bytes);
  void Stop(const std::string& why);

  const std::string path_;
  const int file_;
  PlanWriter plans_;
  std::unordered_set<Hash128, Hash128Hasher> known_media_;
  std::string bytes_;  // of the piece that is being made

  std::mutex mutex_;
  std::condition_variable added_, written_;
  std::vector<Piece> pieces_;  // under mutex_, and the next three
  int64_t behind_bytes_ = 0;
  int64_t whole_step_ = -1;  // whose result is the last before whole_bytes_
  bool ends_ = false;
  // Written under mutex_, so that nothing becomes whole once recording has stopped.
  std::atomic<bool> stopped_ = false;
  std::atomic<int64_t> whole_bytes_ = 0;
  int64_t file_bytes_ = 0;  // the thread's: whole records
  std::thread thread_;
};

}  // namespace fd
