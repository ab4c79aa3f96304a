#include "engine/record/recorder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/byte_stream.h"
#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/strings.h"

namespace fd {
namespace {

// What a picture's record holds besides its pixels is less.
constexpr int64_t kMaxMediaBytes = int64_t{kMaxRecordBytes} - 4096;

}  // namespace

int64_t Recorder::BytesOf(const Piece& piece) {
  return piece.item != nullptr ? std::ssize(piece.item->patch_rows) : std::ssize(piece.bytes);
}

StatusOr<std::unique_ptr<Recorder>> Recorder::Create(const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
  if (file >= 0) return std::unique_ptr<Recorder>(new Recorder(path, file));
  const int reason = errno;
  struct stat info{};
  const bool is_file = lstat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
  return InvalidArgument(
      StrCat("--record ", path, ": ", std::strerror(reason),
             reason == EEXIST && is_file
                 ? "; a record is never written over: give another name or remove the file"
                 : "; give a new file in a folder that exists, for example --record steps.fdrec"),
      "--record");
}

Recorder::~Recorder() {
  const bool begun = thread_.joinable();
  if (begun) {
    if (recording()) Add({RecordKind::kEnd, FramedRecord(RecordKind::kEnd, {})});
    {
      std::lock_guard lock(mutex_);
      ends_ = true;
    }
    added_.notify_one();
    thread_.join();
  }
  if (close(file_) != 0 && recording()) LogWarning("--record ", path_, ": ", std::strerror(errno));
  if (!begun) unlink(path_.c_str());
}

void Recorder::Begin(const RecordHeader& header) {
  FD_CHECK(!thread_.joinable(), "begun twice");
  bytes_ = kRecordMagic;
  ByteWriter(&bytes_).Fixed32(kRecordVersion);
  bytes_ += FramedRecord(RecordKind::kHeader, HeaderPayload(header));
  thread_ = std::thread([this] { WriteLoop(); });
  Add({RecordKind::kHeader, std::exchange(bytes_, {})});
}

void Recorder::AddPlan(const StepPlan& plan) {
  if (!recording() || plan.sequences.empty()) return;
  for (const MediaEncode& encode : plan.encodes) {
    if (std::ssize(encode.item->patch_rows) > kMaxMediaBytes)
      return Stop(StrCat("a picture of ", encode.item->patch_rows.size(), " bytes of pixels"));
    if (known_media_.insert(encode.item->content_hash).second) Add({RecordKind::kMedia, {}, encode.item});
  }
  bytes_.clear();
  plans_.Write(plan, &bytes_);
  Add({RecordKind::kPlan, FramedRecord(RecordKind::kPlan, bytes_)});
}

void Recorder::AddResult(const StepResult& result) {
  if (!recording()) return;
  bytes_.clear();
  WriteResult(result, &bytes_);
  Add({RecordKind::kResult, FramedRecord(RecordKind::kResult, bytes_), nullptr, result.step});
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
  while (true) {
    pieces.clear();
    {
      std::unique_lock lock(mutex_);
      added_.wait(lock, [this] { return ends_ || stopped_ || !pieces_.empty(); });
      if (pieces_.empty()) break;
      pieces.swap(pieces_);
    }
    for (const Piece& piece : pieces) {
      if (!WritePiece(piece)) break;
      written_.notify_one();
    }
  }
  // No part of a record stays, nor a plan whose result does not fit. Where the file cannot be cut, the
  // reader ends at the same place.
  if (stopped_) [[maybe_unused]]
    const int cut = ftruncate(file_, whole_bytes_);
}

bool Recorder::WritePiece(const Piece& piece) {
  std::string made;
  if (piece.item != nullptr) {
    std::string payload;
    WriteMedia(*piece.item, &payload);
    made = FramedRecord(RecordKind::kMedia, payload);
  }
  const std::string& bytes = piece.item != nullptr ? made : piece.bytes;
  if (!Write(bytes)) return false;
  file_bytes_ += std::ssize(bytes);
  std::lock_guard lock(mutex_);
  if (stopped_) return false;
  behind_bytes_ -= BytesOf(piece);
  if (piece.kind == RecordKind::kPlan || piece.kind == RecordKind::kMedia) return true;
  whole_bytes_ = file_bytes_;
  if (piece.kind == RecordKind::kResult) whole_step_ = piece.step;
  return true;
}

bool Recorder::Write(std::string_view bytes) {
  if (stopped_) return false;
  const bool full = FaultHits(Fault::kRecordDiskFull);
  if (full) bytes = bytes.substr(0, bytes.size() / 2);  // a part still fits
  while (!bytes.empty()) {
    const ssize_t count = write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      Stop(std::strerror(count < 0 ? errno : ENOSPC));
      return false;
    }
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  if (full) Stop(std::strerror(ENOSPC));
  return !full;
}

void Recorder::Stop(const std::string& why) {
  int64_t bytes, step;
  {
    std::lock_guard lock(mutex_);
    if (stopped_.exchange(true)) return;
    pieces_.clear();
    bytes = whole_bytes_;
    step = whole_step_;
  }
  written_.notify_one();
  added_.notify_one();
  LogWarning("--record ", path_, ": ", why, "; no more steps are recorded, ",
             step < 0 ? std::string("none was")
                      : StrCat("the file ends after step ", step, " (", bytes, " bytes) and can be replayed"),
             "; serving goes on");
}

}  // namespace fd
