#include "engine/record/recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/byte_stream.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"

namespace fd {
namespace {

// What a picture's record holds besides its pixels is less.
constexpr int64_t kMaxMediaBytes = int64_t{kMaxRecordBytes} - 4096;

}  // namespace

int64_t Recorder::BytesOf(const Piece& piece) {
  const auto* item = std::get_if<std::shared_ptr<const MediaItem>>(&piece);
  return item != nullptr ? static_cast<int64_t>((*item)->patch_rows.size())
                         : std::ssize(std::get<std::string>(piece));
}

StatusOr<std::unique_ptr<Recorder>> Recorder::Create(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (file >= 0) return std::unique_ptr<Recorder>(new Recorder(path, file));
  const int reason = errno;
  return InvalidArgument(
      StrCat("--record ", path, ": ", std::strerror(reason),
             reason == EEXIST
                 ? "; a record is never written over: give another name or remove the file"
                 : "; give a new file in a folder that exists, for example --record steps.fdrec"),
      "--record");
}

Recorder::~Recorder() {
  const bool begun = thread_.joinable();
  if (begun) {
    if (recording()) Add(FramedRecord(RecordKind::kEnd, {}));
    {
      std::lock_guard lock(mutex_);
      ends_ = true;
    }
    added_.notify_one();
    thread_.join();
  }
  close(file_);
  if (!begun) unlink(path_.c_str());
}

void Recorder::Begin(const RecordHeader& header) {
  FD_CHECK(!thread_.joinable(), "begun twice");
  bytes_ = kRecordMagic;
  ByteWriter(&bytes_).Fixed32(kRecordVersion);
  bytes_ += FramedRecord(RecordKind::kHeader, HeaderPayload(header));
  thread_ = std::thread([this] { WriteLoop(); });
  Add(std::exchange(bytes_, {}));
}

void Recorder::AddPlan(const StepPlan& plan) {
  if (!recording() || plan.sequences.empty()) return;
  for (const MediaEncode& encode : plan.encodes) {
    if (std::ssize(encode.item->patch_rows) > kMaxMediaBytes)
      return Stop(StrCat("a picture of ", encode.item->patch_rows.size(), " bytes of pixels"));
    if (known_media_.insert(encode.item->content_hash).second) Add(encode.item);
  }
  bytes_.clear();
  plans_.Write(plan, &bytes_);
  Add(FramedRecord(RecordKind::kPlan, bytes_));
}

void Recorder::AddResult(const StepResult& result) {
  if (!recording()) return;
  bytes_.clear();
  WriteResult(result, &bytes_);
  Add(FramedRecord(RecordKind::kResult, bytes_));
}

void Recorder::Add(Piece piece) {
  {
    std::unique_lock lock(mutex_);
    const auto room = [this] { return stopped_ || behind_bytes_ <= kMaxBehindBytes; };
    if (!written_.wait_for(lock, kMaxWait, room)) {
      lock.unlock();
      return Stop(StrCat(kMaxBehindBytes >> 20, " MiB wait to be written, the disk is too slow"));
    }
    if (stopped_) return;
    behind_bytes_ += BytesOf(piece);
    pieces_.push_back(std::move(piece));
  }
  added_.notify_one();
}

void Recorder::WriteLoop() {
  std::vector<Piece> pieces;
  std::string bytes;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      added_.wait(lock, [this] { return ends_ || !pieces_.empty(); });
      if (pieces_.empty()) return;
      pieces.swap(pieces_);
    }
    for (const Piece& piece : pieces) {
      if (const auto* item = std::get_if<std::shared_ptr<const MediaItem>>(&piece)) {
        bytes.clear();
        WriteMedia(**item, &bytes);
        if (!Write(FramedRecord(RecordKind::kMedia, bytes))) break;
      } else if (!Write(std::get<std::string>(piece))) {
        break;
      }
      {
        std::lock_guard lock(mutex_);
        behind_bytes_ -= BytesOf(piece);
      }
      written_.notify_one();
    }
    pieces.clear();
  }
}

bool Recorder::Write(std::string_view bytes) {
  if (stopped_) return false;
  while (!bytes.empty()) {
    const ssize_t count = write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      Stop(std::strerror(count < 0 ? errno : ENOSPC));
      return false;
    }
    written_bytes_ += count;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

// What is written so far stays a record that ends early.
void Recorder::Stop(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    if (stopped_.exchange(true)) return;
    pieces_.clear();
  }
  written_.notify_one();
  LogWarning("--record ", path_, ": ", why, "; no more steps are recorded, the ", written_bytes_.load(),
             " bytes that are written can be replayed");
}

}  // namespace fd
