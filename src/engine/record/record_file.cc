#include "engine/record/record_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/byte_stream.h"
#include "base/crc32.h"
#include "base/strings.h"
#include "compute/ops/sample.h"
#include "engine/plan/step_plan_io.h"

namespace fd {
namespace {

constexpr int64_t kFrameBytes = 9;  // length, kind, CRC

// The ranges of the flags, as far as memory is taken by them.
Status CheckOptions(const EngineOptions& o) {
  struct Range {
    const char* name;
    int64_t value, min, max;
  };
  constexpr int64_t kMany = int64_t{1} << 20;
  for (const Range& r : {Range{"max_model_len", o.max_model_len, 1, int64_t{1} << 24},
                         Range{"max_num_seqs", o.max_num_seqs, 1, 65536},
                         Range{"max_num_batched_tokens", o.max_num_batched_tokens, 1, kMany},
                         Range{"num_kv_pages", o.num_kv_pages, 1, (int64_t{1} << 31) / kKvPageTokens - 1},
                         Range{"num_host_pages", o.num_host_pages, 0, (int64_t{1} << 31) / kKvPageTokens - 1},
                         Range{"max_media_tokens", o.max_media_tokens, 0, int64_t{1} << 24},
                         Range{"encoder_cache_tokens", o.encoder_cache_tokens, 0, int64_t{1} << 24},
                         Range{"max_encoder_batch_tokens", o.max_encoder_batch_tokens, 1, kMany},
                         Range{"max_logit_bias", o.max_logit_bias, 0, 65536},
                         Range{"max_banned_tokens", o.max_banned_tokens, 0, 65536},
                         Range{"max_allowed_token_ids", o.max_allowed_token_ids, 0, 65536},
                         Range{"max_logprobs", o.max_logprobs, 0, ops::kMaxTopLogprobs},
                         Range{"sampled_vocab_size", o.sampled_vocab_size, 0, int64_t{1} << 31}}) {
    if (r.value >= r.min && r.value <= r.max) continue;
    return InvalidArgument(
        StrCat("the record says ", r.name, " ", r.value, "; it must be from ", r.min, " to ", r.max));
  }
  if (o.kv_dtype && *o.kv_dtype != DType::kFloat8E4M3 && *o.kv_dtype != DType::kInt8) {
    return InvalidArgument(StrCat("the record says pages of ", DTypeName(*o.kv_dtype),
                                  "; besides the model's own type there are fp8 and int8"));
  }
  return OkStatus();
}

}  // namespace

std::string HeaderPayload(const RecordHeader& header) {
  std::string payload, options;
  ByteWriter out(&payload);
  out.Unsigned(header.facts.size());
  for (const RecordFact& fact : header.facts) {
    out.Text(fact.name);
    out.Text(fact.value);
    out.Byte(fact.must_match ? 1 : 0);
  }
  out.Text(WriteJson(header.model_flags));
  WriteOptions(header.options, &options);
  out.Text(options);
  return payload;
}

StatusOr<RecordHeader> ReadHeader(std::string_view payload) {
  RecordHeader header;
  ByteReader in(payload);
  const uint64_t count = in.Unsigned();
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    RecordFact& fact = header.facts.emplace_back();
    fact.name = in.Text();
    fact.value = in.Text();
    fact.must_match = in.Byte() != 0;
  }
  const std::string_view flags = in.Text(), options = in.Text();
  if (!in.AtEnd()) return InvalidArgument("its header is not of this version of fastdeploy");
  StatusOr<Json> json = ParseJson(flags);
  if (!json.ok() || !json->is_object()) return InvalidArgument("the flags in its header are no JSON object");
  header.model_flags = json->as_object();
  FD_ASSIGN_OR_RETURN(header.options, ReadOptions(options));
  FD_RETURN_IF_ERROR(CheckOptions(header.options));
  return header;
}

std::string FramedRecord(RecordKind kind, std::string_view payload) {
  FD_CHECK_LE(payload.size(), kMaxRecordBytes);
  std::string framed;
  framed.reserve(payload.size() + kFrameBytes);
  ByteWriter out(&framed);
  out.Fixed32(static_cast<uint32_t>(payload.size()));
  out.Byte(static_cast<uint8_t>(kind));
  out.Bytes(payload);
  out.Fixed32(Crc32(std::string_view(framed).substr(4)));
  return framed;
}

StatusOr<std::unique_ptr<RecordReader>> RecordReader::Open(const std::string& path) {
  const auto wrong = [&path](const std::string& what) { return InvalidArgument(StrCat(path, ": ", what)); };
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr)
    return NotFound(StrCat(path, ": ", std::strerror(errno), "; give a file that serve --record wrote"));
  struct stat info{};
  const bool regular = fstat(fileno(file), &info) == 0 && S_ISREG(info.st_mode);
  std::unique_ptr<RecordReader> reader(new RecordReader(file, regular ? info.st_size : 0));
  if (!regular) return wrong("no regular file; give one that serve --record wrote");
  std::string begin(kRecordMagic.size() + 4, '\0');
  if (std::fread(begin.data(), 1, begin.size(), file) != begin.size() || !begin.starts_with(kRecordMagic))
    return wrong("no record of fastdeploy; give a file that serve --record wrote");
  const uint32_t version = ByteReader(std::string_view(begin).substr(kRecordMagic.size())).Fixed32();
  if (version != kRecordVersion)
    return wrong(StrCat("a record of version ", version, "; this program reads version ", kRecordVersion));
  reader->offset_ = static_cast<int64_t>(begin.size());
  FD_ASSIGN_OR_RETURN(const auto kind, reader->ReadAt(reader->offset_, &reader->payload_));
  if (!kind || *kind != RecordKind::kHeader) return wrong("it ends before its header does");
  reader->offset_ += kFrameBytes + static_cast<int64_t>(reader->payload_.size());
  StatusOr<RecordHeader> header = ReadHeader(reader->payload_);
  if (!header.ok()) return header.status().WithContext(path);
  reader->header_ = std::move(*header);
  return reader;
}

RecordReader::~RecordReader() { std::fclose(file_); }

// None: the file ends within this record.
StatusOr<std::optional<RecordKind>> RecordReader::ReadAt(int64_t offset, std::string* payload) {
  const auto damaged = [offset](const std::string& what) {
    return InvalidArgument(StrCat("the record at byte ", offset, " is damaged: ", what));
  };
  std::string head(5, '\0'), tail(4, '\0');
  const auto read = [this](std::string& to) {
    return std::fread(to.data(), 1, to.size(), file_) == to.size();
  };
  if (std::fseek(file_, offset, SEEK_SET) != 0 || !read(head)) return std::optional<RecordKind>();
  ByteReader in(head);
  const uint32_t bytes = in.Fixed32();
  const uint8_t kind = in.Byte();
  if (bytes > kMaxRecordBytes) return damaged(StrCat("a length of ", bytes, " bytes"));
  if (kFrameBytes + int64_t{bytes} > file_bytes_ - offset) return std::optional<RecordKind>();
  payload->resize(bytes);
  if (!read(*payload) || !read(tail)) return std::optional<RecordKind>();
  if (Crc32(*payload, Crc32(std::string_view(head).substr(4))) != ByteReader(tail).Fixed32())
    return damaged("its checksum is another one");
  if (kind < static_cast<uint8_t>(RecordKind::kHeader) || kind > static_cast<uint8_t>(RecordKind::kEnd))
    return damaged(StrCat("a record of kind ", int{kind}));
  return std::optional(static_cast<RecordKind>(kind));
}

StatusOr<std::optional<RecordReader::Record>> RecordReader::Next() {
  while (!truncated_) {
    FD_ASSIGN_OR_RETURN(const std::optional<RecordKind> kind, ReadAt(offset_, &payload_));
    if (!kind) {
      truncated_ = true;
      break;
    }
    const int64_t begin = offset_;
    offset_ += kFrameBytes + static_cast<int64_t>(payload_.size());
    if (*kind == RecordKind::kPlan || *kind == RecordKind::kResult)
      return std::optional(Record{*kind, payload_});
    if (*kind == RecordKind::kHeader)
      return InvalidArgument(StrCat("the record at byte ", begin, " is a second header"));
    if (*kind == RecordKind::kEnd) {
      if (offset_ != file_bytes_)
        return InvalidArgument(StrCat(file_bytes_ - offset_, " bytes stand behind the end at byte ", begin));
      offset_ = begin;  // whoever asks again gets the same answer
      break;
    }
    StatusOr<MediaItem> item = ReadMedia(payload_);
    if (!item.ok()) return item.status().WithContext(StrCat("the record at byte ", begin));
    media_.emplace(item->content_hash, begin);
  }
  return std::optional<Record>();
}

std::shared_ptr<const MediaItem> RecordReader::MediaOf(const Hash128& content_hash) {
  const auto found = media_.find(content_hash);
  if (found == media_.end()) return nullptr;
  const auto kind = ReadAt(found->second, &media_payload_);
  if (!kind.ok() || *kind != RecordKind::kMedia) return nullptr;
  StatusOr<MediaItem> item = ReadMedia(media_payload_);
  if (!item.ok()) return nullptr;
  return std::make_shared<const MediaItem>(std::move(*item));
}

}  // namespace fd
