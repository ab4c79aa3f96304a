// The file of a record: what an engine was, every plan that it launched and what each step drew.
//
//   "FDRECORD", version (u32), then records: payload bytes (u32), kind (u8), payload, CRC-32 of kind and
//   payload (u32). Little endian. The first record is the header, the last one says that the file is whole.
//
// Plans and results stand in the order in which the engine launched and waited, so two plans may come before
// the first one's result. A picture stands once, before the first plan that encodes it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/json.h"
#include "base/status.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"

namespace fd {

inline constexpr std::string_view kRecordMagic = "FDRECORD";
inline constexpr uint32_t kRecordVersion = 1;
// Far above a picture's pixels; a longer record is damage.
inline constexpr uint32_t kMaxRecordBytes = uint32_t{1} << 30;

enum class RecordKind : uint8_t { kHeader = 1, kMedia = 2, kPlan = 3, kResult = 4, kEnd = 5 };

// Something that the tokens depend on: "dtype" is "bfloat16". Where `must_match` is false another value may
// give the same tokens (another build, another machine): that is worth trying.
struct RecordFact {
  std::string name;
  std::string value;
  bool must_match = true;
  bool operator==(const RecordFact&) const = default;
};

struct RecordHeader {
  std::vector<RecordFact> facts;
  JsonObject model_flags;  // those that were given, by their names
  EngineOptions options;
};

std::string HeaderPayload(const RecordHeader& header);
// Any bytes. Limits outside of what flags allow are an error.
StatusOr<RecordHeader> ReadHeader(std::string_view payload);
// A record as it stands in the file.
std::string FramedRecord(RecordKind kind, std::string_view payload);

// Reads any file; memory stays below that of its largest record, pictures included. One thread.
class RecordReader {
 public:
  struct Record {
    RecordKind kind = RecordKind::kEnd;
    std::string_view payload;  // until the next call
  };
  // Reads the magic, the version and the header.
  static StatusOr<std::unique_ptr<RecordReader>> Open(const std::string& path);
  ~RecordReader();
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;

  const RecordHeader& header() const { return header_; }
  // The next plan or result; none at the end. Pictures are passed over and found by MediaOf. An error is
  // damage: what came before it may be trusted.
  StatusOr<std::optional<Record>> Next();
  // After the end: the file does not say that it is whole. Whoever wrote it was killed, or had no more room.
  bool truncated() const { return truncated_; }
  // Reads it again from the file. Null: no such picture, or it has changed meanwhile.
  std::shared_ptr<const MediaItem> MediaOf(const Hash128& content_hash);
  int64_t offset() const { return offset_; }  // of the next record
  int64_t file_bytes() const { return file_bytes_; }

 private:
  explicit RecordReader(std::FILE* file, int64_t file_bytes) : file_(file), file_bytes_(file_bytes) {}
  StatusOr<std::optional<RecordKind>> ReadAt(int64_t offset, std::string* payload);
  std::FILE* const file_;
  const int64_t file_bytes_;
  int64_t offset_ = 0;
  RecordHeader header_;
  std::string payload_, media_payload_;
  std::unordered_map<Hash128, int64_t, Hash128Hasher> media_;  // where its record begins
  bool truncated_ = false;
};

}  // namespace fd
