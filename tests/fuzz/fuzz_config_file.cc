// Any bytes as the file of --config, and a tree of values that the bytes choose, written as YAML: an error
// that names its line, or flags that become what the file says. The tree is read back as it was.
//
// The first byte: bit 0, a tree. A seed begins with "0" or "1".
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "config_file.h"
#include "flag_set.h"
#include "fuzz_require.h"

namespace {

using fd::fuzz::Require;

// A regular file that lies nowhere.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("config", MFD_CLOEXEC)) { Require(descriptor_ >= 0, "memfd"); }
  void Write(std::string_view text) const {
    Require(::ftruncate(descriptor_, 0) == 0 &&
                ::pwrite(descriptor_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()),
            "the file is written");
  }
  std::string path() const { return fd::StrCat("/proc/self/fd/", descriptor_); }

 private:
  const int descriptor_;
};

void RunFlags(std::string_view yaml) {
  static const MemoryFile file;
  file.Write(yaml);
  fd::FlagSet flags("x", "y");
  int64_t port = 1;
  double share = 0.5;
  bool strict = false;
  std::string model, config, format = "text";
  std::vector<std::string> keys;
  fd::JsonObject kwargs;
  flags.Integer("port", &port, {.min = 0, .max = 65535, .example = 1}, "");
  flags.Real("share", &share, {.min = 0, .max = 1, .example = 0.5, .min_excluded = true}, "");
  flags.Text("model", &model, "", "FOLDER");
  flags.Text("config", &config, "", "FILE");
  flags.Choice("log-format", &format, {"text", "json"}, "");
  flags.List("api-key", &keys, "", "KEY");
  flags.Switch("strict-requests", &strict, "");
  flags.Refuse("enable-eplb", false, "is still to come");
  flags.Custom("default-chat-template-kwargs", "JSON", "", "{}",
               [&kwargs](const std::string& text) -> fd::Status {
                 FD_ASSIGN_OR_RETURN(kwargs, fd::ParseObject(text, "{}"));
                 return fd::OkStatus();
               });
  std::vector<std::string> args = {"--config", file.path()};
  if (const fd::Status s = fd::ExpandConfigFile(flags, &args); !s.ok()) {
    Require(s.message().starts_with("--config /proc/self/fd/"), "the error names the file");
    return;
  }
  if (const auto parsed = flags.Parse(args); !parsed.ok()) {
    Require(!parsed.status().message().empty(), "a flag's error says something");
    return;
  }
  Require(port >= 0 && port <= 65535 && share > 0 && share <= 1, "flags are in their ranges");
  Require(format == "text" || format == "json", "flags have one of their values");
}

void RunText(std::string_view yaml) {
  const auto entries = fd::ParseConfig(yaml);
  if (!entries.ok()) {
    const std::string& message = entries.status().message();
    Require(message.starts_with("line ") && message.find(": ") != std::string::npos,
            "the error names a line");
  } else {
    int line = 0;
    for (const fd::ConfigEntry& entry : *entries) {
      Require(!entry.key.empty() && entry.line > line, "entries have keys, in the order of their lines");
      line = entry.line;
      if (fd::IsValidUtf8(yaml)) {
        const auto again = fd::ParseJson(fd::WriteJson(entry.value));
        Require(again.ok() && *again == entry.value, "values are JSON");
      }
    }
  }
  RunFlags(yaml);
}

// The tree and its text, from the same bytes.
class TreeWriter {
 public:
  TreeWriter(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  fd::JsonObject Map(size_t indent, int depth) {
    fd::JsonObject map;
    const size_t count = 1 + Next() % 4;
    for (size_t i = 0; i < count; ++i) {
      const std::string key = fd::StrCat(kKeys[Next() % std::size(kKeys)], i);
      yaml_.append(indent, ' ').append(key).append(":");
      map.Set(key, Value(indent, depth));
    }
    return map;
  }
  const std::string& yaml() const { return yaml_; }

 private:
  static constexpr const char* kKeys[] = {"port", "api_key", "limit-mm-per-prompt", "a.b/c"};
  struct Text {
    const char* yaml;
    const char* json;
  };
  static constexpr Text kScalars[] = {
      {"1", "1"},
      {"-7 # seven", "-7"},
      {"1.5", "1.5"},
      {"true", "true"},
      {"False", "false"},
      {"~", "null"},
      {"yes", "\"yes\""},
      {"http://x.org:80/y#z", "\"http://x.org:80/y#z\""},
      {"'it''s # no comment'", "\"it's # no comment\""},
      {"\"\\u00e9: #\"", "\"\\u00e9: #\""},
      {"{\"image\": [1, {}], \"#\": null} # json", "{\"image\":[1,{}],\"#\":null}"},
      {"[]", "[]"},
      {"inf", "\"inf\""},
      {"0x10", "\"0x10\""},
      {"9223372036854775808", "9223372036854775808"}};

  uint8_t Next() { return at_ < size_ ? data_[at_++] : 0; }
  void EndLine() {
    constexpr const char* kEnds[] = {"\n", "\r\n", "  \n", " # note\n", "\n\n", "\n# note: 'x\n"};
    yaml_ += kEnds[Next() % std::size(kEnds)];
  }
  // Behind "key:" or "-".
  fd::Json Value(size_t indent, int depth) {
    const uint8_t choice = Next();
    if (depth < 6 && choice % 4 == 1) {
      EndLine();
      return Map(indent + 1 + choice / 4 % 3, depth + 1);
    }
    if (depth < 6 && choice % 4 == 2) {
      EndLine();
      return List(indent + 1 + choice / 4 % 3, depth + 1);
    }
    const Text& scalar = kScalars[choice / 4 % std::size(kScalars)];
    yaml_.append(" ").append(scalar.yaml);
    EndLine();
    return *fd::ParseJson(scalar.json);
  }
  fd::Json List(size_t indent, int depth) {
    fd::JsonArray list;
    const size_t count = 1 + Next() % 3;
    for (size_t i = 0; i < count; ++i) {
      yaml_.append(indent, ' ').append("-");
      list.push_back(Value(indent, depth));
    }
    return list;
  }

  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
  std::string yaml_;
};

void RunTree(const uint8_t* data, size_t size) {
  TreeWriter writer(data, size);
  const fd::JsonObject tree = writer.Map(0, 0);
  const auto entries = fd::ParseConfig(writer.yaml());
  fd::JsonObject read;
  if (entries.ok()) {
    for (const fd::ConfigEntry& entry : *entries) read.Set(entry.key, entry.value);
  }
  if (!entries.ok() || !(fd::Json(read) == fd::Json(tree))) {
    std::fprintf(stderr, "%s\n%s\n%s\n", writer.yaml().c_str(), fd::WriteJson(tree).c_str(),
                 entries.ok() ? fd::WriteJson(read).c_str() : entries.status().message().c_str());
    Require(false, "the tree is read as it was written");
  }
  RunFlags(writer.yaml());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 64 << 10) return 0;
  if ((data[0] & 1) != 0) {
    RunTree(data + 1, size - 1);
  } else {
    RunText({reinterpret_cast<const char*>(data) + 1, size - 1});
  }
  return 0;
}
