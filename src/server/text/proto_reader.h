// Reads the protobuf wire format (protobuf.dev/programming-guides/encoding) of bytes that nobody vouches for.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace fd {

struct ProtoField {
  uint32_t number = 0;
  enum Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 } type = kVarint;
  uint64_t value = 0;      // kVarint, kFixed64, kFixed32
  std::string_view bytes;  // kBytes: a view into the message
};

// One message: while (!reader.done()) { FD_ASSIGN_OR_RETURN(ProtoField field, reader.Next()); ... }
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view message) : message_(message) {}
  bool done() const { return at_ == message_.size(); }
  // Errors name the byte offset within this message.
  StatusOr<ProtoField> Next();

 private:
  StatusOr<uint64_t> Varint();
  std::string_view message_;
  size_t at_ = 0;
};

}  // namespace fd
