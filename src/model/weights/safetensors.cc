#include "model/weights/safetensors.h"

#include <algorithm>
#include <cstring>

#include "base/json.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr size_t kMaxDims = 16;

struct StoredType {
  std::string_view name;
  int bits;
};
constexpr StoredType kStoredTypes[] = {
    {"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"U16", 16},
    {"I16", 16}, {"F16", 16}, {"BF16", 16}, {"U32", 32},    {"I32", 32},    {"F32", 32},    {"U64", 64},
    {"I64", 64}, {"F64", 64}, {"C64", 64},  {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4_E2M1", 4},
};

int BitsOf(std::string_view dtype) {
  for (const StoredType& t : kStoredTypes) {
    if (t.name == dtype) return t.bits;
  }
  return 0;
}

// A tensor's name as an error message shows it; names come from the file.
std::string Shown(std::string_view name) {
  std::string out;
  AppendJsonString(out, name.substr(0, 120));
  return out;
}

StatusOr<TensorInfo> ParseTensor(const std::string& name, const Json& entry, int64_t data_begin) {
  auto wrong = [&](const auto&... what) {
    return InvalidArgument(StrCat("tensor ", Shown(name), ": ", what...));
  };
  if (!entry.is_object()) return wrong("the header holds ", entry.TypeName(), "; expected an object");
  const Json* dtype = entry.Find("dtype");
  const Json* shape = entry.Find("shape");
  const Json* offsets = entry.Find("data_offsets");
  if (dtype == nullptr || !dtype->is_string()) return wrong("dtype is missing or no string");
  if (shape == nullptr || !shape->is_array()) return wrong("shape is missing or no array");
  if (offsets == nullptr || !offsets->is_array() || offsets->as_array().size() != 2) {
    return wrong("data_offsets is missing or no pair");
  }
  TensorInfo t;
  t.name = name;
  t.dtype = dtype->as_string().substr(0, 32);
  const int bits = BitsOf(dtype->as_string());
  if (bits == 0) return wrong("unknown dtype ", Shown(t.dtype));
  if (shape->as_array().size() > kMaxDims) return wrong("more than ", kMaxDims, " dimensions");
  int64_t size_bits = bits;
  for (const Json& d : shape->as_array()) {
    if (!d.is_int() || d.as_int() < 0) return wrong("shape holds a value that is no size");
    if (__builtin_mul_overflow(size_bits, d.as_int(), &size_bits))
      return wrong("the shape overflows 64 bits");
    t.shape.push_back(d.as_int());
  }
  for (const Json& o : offsets->as_array()) {
    if (!o.is_int() || o.as_int() < 0) return wrong("data_offsets holds a value that is no offset");
  }
  const int64_t begin = offsets->as_array()[0].as_int();
  const int64_t end = offsets->as_array()[1].as_int();
  if (end < begin) return wrong("data_offsets end before they begin: [", begin, ", ", end, "]");
  if (size_bits % 8 != 0 || end - begin != size_bits / 8) {
    return wrong("data_offsets span ", end - begin, " bytes, but ", t.dtype, " ", ShapeToString(t.shape),
                 " needs ", (size_bits + 7) / 8);
  }
  int64_t file_end;
  if (__builtin_add_overflow(end, data_begin, &file_end)) return wrong("data_offsets overflow 64 bits");
  t.offset = begin + data_begin;
  t.size_bytes = end - begin;
  return t;
}

}  // namespace

int64_t TensorInfo::NumElements() const {
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  return n;
}

std::string ShapeToString(const std::vector<int64_t>& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += StrCat(i > 0 ? ", " : "", shape[i]);
  return out + "]";
}

StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view bytes, int64_t file_bytes) {
  if (bytes.size() < 8) {
    return InvalidArgument(
        StrCat("truncated: ", file_bytes, " bytes, but a safetensors file has at least 8"));
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(bytes[static_cast<size_t>(i)]);
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return InvalidArgument(StrCat("not a safetensors file: its header would have ", length,
                                  " bytes; the limit is ", kMaxHeaderBytes));
  }
  SafetensorsHeader header;
  header.header_bytes = static_cast<int64_t>(length);
  const int64_t data_begin = 8 + header.header_bytes;
  if (static_cast<int64_t>(bytes.size()) < data_begin) {
    return InvalidArgument(
        StrCat("truncated: ", file_bytes, " bytes, but the header alone ends at byte ", data_begin));
  }
  std::string_view text = bytes.substr(8, static_cast<size_t>(length));
  if (text.empty() || text[0] != '{')
    return InvalidArgument("not a safetensors file: no '{' after the length");
  JsonLimits limits;
  limits.max_depth = 8;
  limits.max_values = 8'000'000;
  StatusOr<Json> json = ParseJson(Trim(text), limits);
  if (!json.ok()) return json.status().WithContext("safetensors header");

  for (const auto& [name, entry] : json->as_object()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return InvalidArgument("__metadata__ is no object");
      for (const auto& [key, value] : entry.as_object()) {
        if (!value.is_string()) return InvalidArgument("__metadata__ holds a value that is no string");
        header.metadata.emplace_back(key, value.as_string());
      }
      continue;
    }
    FD_ASSIGN_OR_RETURN(TensorInfo tensor, ParseTensor(name, entry, data_begin));
    header.tensors.push_back(std::move(tensor));
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const TensorInfo& a, const TensorInfo& b) {
                     return a.offset != b.offset ? a.offset < b.offset : a.size_bytes < b.size_bytes;
                   });
  int64_t at = data_begin;
  for (size_t i = 0; i < header.tensors.size(); ++i) {
    const TensorInfo& t = header.tensors[i];
    if (t.offset != at) {
      return InvalidArgument(
          StrCat("tensor ", Shown(t.name), t.offset < at ? " overlaps" : " leaves a gap after",
                 i == 0 ? std::string(" the header") : " " + Shown(header.tensors[i - 1].name),
                 ": it begins at byte ", t.offset, ", expected ", at));
    }
    at += t.size_bytes;  // = data_offsets end + data_begin, which ParseTensor checked
  }
  if (at > file_bytes) {
    return InvalidArgument(
        StrCat("truncated: the file has ", file_bytes, " bytes, its header describes ", at));
  }
  if (at < file_bytes) {
    return InvalidArgument(StrCat("the file has ", file_bytes, " bytes, its header describes only ", at));
  }
  return header;
}

SafetensorsFile::SafetensorsFile(std::shared_ptr<MappedFile> file, SafetensorsHeader header)
    : file_(std::move(file)), header_(std::move(header)) {
  by_name_.resize(header_.tensors.size());
  for (size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = static_cast<uint32_t>(i);
  std::sort(by_name_.begin(), by_name_.end(),
            [this](uint32_t a, uint32_t b) { return header_.tensors[a].name < header_.tensors[b].name; });
}

StatusOr<std::shared_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  FD_ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  std::string_view bytes(reinterpret_cast<const char*>(file->data()),
                         static_cast<size_t>(file->size_bytes()));
  StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes, file->size_bytes());
  if (!header.ok()) return header.status().WithContext(path);
  return std::shared_ptr<SafetensorsFile>(new SafetensorsFile(std::move(file), std::move(header).value()));
}

const TensorInfo* SafetensorsFile::Find(std::string_view name) const {
  auto it = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                             [this](uint32_t i, std::string_view n) { return header_.tensors[i].name < n; });
  if (it == by_name_.end() || header_.tensors[*it].name != name) return nullptr;
  return &header_.tensors[*it];
}

}  // namespace fd
