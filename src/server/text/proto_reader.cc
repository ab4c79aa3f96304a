#include "server/text/proto_reader.h"

#include "base/strings.h"

namespace fd {

StatusOr<uint64_t> ProtoReader::Varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (at_ == message_.size())
      return InvalidArgument(StrCat("protobuf: ends inside a varint at byte ", at_));
    const uint8_t byte = static_cast<uint8_t>(message_[at_++]);
    if (shift == 63 && byte > 1) break;
    value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return value;
  }
  return InvalidArgument(StrCat("protobuf: varint beyond 64 bits before byte ", at_));
}

StatusOr<ProtoField> ProtoReader::Next() {
  const size_t start = at_;
  FD_ASSIGN_OR_RETURN(const uint64_t tag, Varint());
  ProtoField field;
  if (tag >> 3 == 0 || tag >> 3 > 0x1FFFFFFF) {
    return InvalidArgument(StrCat("protobuf: field number ", tag >> 3, " at byte ", start));
  }
  field.number = static_cast<uint32_t>(tag >> 3);
  const size_t left = message_.size() - at_;
  auto fixed = [&](size_t size) -> Status {
    if (left < size)
      return InvalidArgument(StrCat("protobuf: field ", field.number, " at byte ", start, " is cut off"));
    for (size_t i = 0; i < size; ++i)
      field.value |= uint64_t{static_cast<uint8_t>(message_[at_ + i])} << (8 * i);
    at_ += size;
    return OkStatus();
  };
  switch (tag & 7) {
    case 0: {
      FD_ASSIGN_OR_RETURN(field.value, Varint());
      return field;
    }
    case 1:
      field.type = ProtoField::kFixed64;
      FD_RETURN_IF_ERROR(fixed(8));
      return field;
    case 2: {
      field.type = ProtoField::kBytes;
      FD_ASSIGN_OR_RETURN(const uint64_t length, Varint());
      if (length > message_.size() - at_) {
        return InvalidArgument(StrCat("protobuf: field ", field.number, " at byte ", start, " claims ",
                                      length, " bytes, ", message_.size() - at_, " are left"));
      }
      field.bytes = message_.substr(at_, length);
      at_ += length;
      return field;
    }
    case 5:
      field.type = ProtoField::kFixed32;
      FD_RETURN_IF_ERROR(fixed(4));
      return field;
    default:
      return InvalidArgument(
          StrCat("protobuf: wire type ", tag & 7, " of field ", field.number, " at byte ", start));
  }
}

}  // namespace fd
