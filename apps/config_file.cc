#include "config_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr int kMaxDepth = 16;

struct Line {
  int number = 0;
  size_t indent = 0;
  std::string_view text;  // without indent, comment and trailing blanks; never empty
};

Status ErrorAt(int line, std::string_view what) { return InvalidArgument(StrCat("line ", line, ": ", what)); }

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::string_view TrimRight(std::string_view text) {
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

// Cuts a comment: a '#' at the start or after a blank, outside of quotes.
std::string_view WithoutComment(std::string_view text) {
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      const bool escapes = quote == '"' ? c == '\\' : c == quote && text.substr(i + 1).starts_with(quote);
      if (escapes) {
        ++i;
      } else if (c == quote) {
        quote = 0;
      }
    } else if ((c == '"' || c == '\'') && (i == 0 || IsBlank(text[i - 1]) || text[i - 1] == '[' ||
                                           text[i - 1] == '{' || text[i - 1] == ',' || text[i - 1] == ':')) {
      quote = c;
    } else if (c == '#' && (i == 0 || IsBlank(text[i - 1]))) {
      return TrimRight(text.substr(0, i));
    }
  }
  return TrimRight(text);
}

// Where "key:" ends in "key: value"; npos where the line is no entry of a map.
size_t ColonOf(std::string_view text) {
  if (text.starts_with('"') || text.starts_with('\'') || text.starts_with('[') || text.starts_with('{'))
    return std::string_view::npos;
  for (size_t i = text.find(':'); i != std::string_view::npos; i = text.find(':', i + 1)) {
    if (i + 1 == text.size() || IsBlank(text[i + 1])) return i;
  }
  return std::string_view::npos;
}

bool IsListItem(std::string_view text) { return text == "-" || text.starts_with("- "); }

Json PlainScalar(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return {};
  if (text == "true" || text == "True" || text == "TRUE") return Json(true);
  if (text == "false" || text == "False" || text == "FALSE") return Json(false);
  int64_t integer = 0;
  const char* end = text.data() + text.size();
  if (auto [stop, error] = std::from_chars(text.data(), end, integer); error == std::errc() && stop == end)
    return Json(integer);
  double real = 0;
  if (auto [stop, error] = std::from_chars(text.data(), end, real);
      error == std::errc() && stop == end && std::isfinite(real))
    return Json(real);
  return Json(std::string(text));
}

class ConfigParser {
 public:
  Status Read(std::string_view text);
  StatusOr<std::vector<ConfigEntry>> Entries();

 private:
  // A value that begins behind "key:" or "-", or on the lines below that are deeper than `indent`.
  // list_below: a list may also stand at `indent` itself, as below a key.
  Status Value(std::string_view rest, int line, size_t indent, bool list_below, int depth, std::string* text,
               Json* value);
  Status Block(size_t indent, int depth, Json* value);
  Status Scalar(std::string_view rest, int line, std::string* text, Json* value);
  Status Key(const Line& line, size_t colon, std::string* key);
  bool done() const { return at_ == lines_.size(); }

  std::vector<Line> lines_;
  size_t at_ = 0;
};

Status ConfigParser::Read(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t indent = std::min(line.find_first_not_of(' '), line.size());
    const std::string_view content = WithoutComment(line.substr(indent));
    if (content.empty()) continue;
    if (content.front() == '\t') return ErrorAt(number, "a tab begins the line; YAML takes blanks");
    if (indent == 0 &&
        (content == "---" || content.starts_with("--- ") || content == "..." || content[0] == '%')) {
      if (content == "---" && lines_.empty()) continue;
      return ErrorAt(number, "one document without directives is read");
    }
    lines_.push_back({number, indent, content});
  }
  return OkStatus();
}

Status ConfigParser::Key(const Line& line, size_t colon, std::string* key) {
  *key = std::string(TrimRight(line.text.substr(0, colon)));
  if (key->empty() || !std::all_of(key->begin(), key->end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.' || c == '/';
      })) {
    return ErrorAt(line.number,
                   StrCat("'", *key, "' is no name of a flag; expected a line such as port: 8180"));
  }
  return OkStatus();
}

Status ConfigParser::Scalar(std::string_view rest, int line, std::string* text, Json* value) {
  const char first = rest.front();
  if (first == '&' || first == '*' || first == '!' || first == '|' || first == '>' || first == '@' ||
      first == '`' || rest.starts_with("? ")) {
    return ErrorAt(line, StrCat("values that begin with '", std::string(1, first),
                                "' are not read; put a text in quotes on one line"));
  }
  if (first == '\'') {
    std::string unquoted;
    for (size_t i = 1; i < rest.size(); ++i) {
      if (rest[i] != '\'') {
        unquoted += rest[i];
      } else if (i + 1 < rest.size() && rest[i + 1] == '\'') {
        unquoted += rest[i++];
      } else if (i + 1 == rest.size()) {
        *text = unquoted;
        *value = Json(std::move(unquoted));
        return OkStatus();
      } else {
        break;
      }
    }
    return ErrorAt(line, "a text in single quotes does not end with the line; write a quote in it twice");
  }
  *text = std::string(rest);
  if (first == '"' || first == '[' || first == '{') {
    StatusOr<Json> json = ParseJson(rest);
    if (!json.ok()) {
      return ErrorAt(line, StrCat("what begins with '", std::string(1, first),
                                  "' must be JSON on one line: ", json.status().message()));
    }
    if (json->is_string()) *text = json->as_string();
    *value = std::move(*json);
    return OkStatus();
  }
  if (ColonOf(rest) != std::string_view::npos)
    return ErrorAt(line, "a ': ' stands in a plain text; put the text in quotes");
  *value = PlainScalar(rest);
  return OkStatus();
}

Status ConfigParser::Value(std::string_view rest, int line, size_t indent, bool list_below, int depth,
                           std::string* text, Json* value) {
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
  if (!rest.empty()) {
    FD_RETURN_IF_ERROR(Scalar(rest, line, text, value));
    if (!done() && lines_[at_].indent > indent)
      return ErrorAt(lines_[at_].number, "a value ends with its line; this line is deeper than its key");
    return OkStatus();
  }
  const bool below = !done() && (lines_[at_].indent > indent || (list_below && lines_[at_].indent == indent &&
                                                                 IsListItem(lines_[at_].text)));
  if (!below) {
    *value = Json();
    return OkStatus();
  }
  return Block(lines_[at_].indent, depth + 1, value);
}

Status ConfigParser::Block(size_t indent, int depth, Json* value) {
  if (depth > kMaxDepth) return ErrorAt(lines_[at_].number, StrCat("deeper than ", kMaxDepth, " levels"));
  const bool is_list = IsListItem(lines_[at_].text);
  if (!is_list && ColonOf(lines_[at_].text) == std::string_view::npos)
    return ErrorAt(lines_[at_].number, "expected 'key: value' or '- value'");
  JsonArray list;
  JsonObject map;
  std::string text;
  while (!done() && lines_[at_].indent >= indent) {
    const Line line = lines_[at_];
    if (line.indent != indent) return ErrorAt(line.number, "this line is deeper than the one before");
    if (IsListItem(line.text) != is_list) {
      // Below a key a list may stand as deep as the key; the next key ends it.
      if (is_list) break;
      return ErrorAt(line.number, "an item of a list among keys");
    }
    ++at_;
    if (is_list) {
      const std::string_view rest = line.text.substr(1);
      if (ColonOf(Trim(rest)) != std::string_view::npos)
        return ErrorAt(line.number, "a map in a list is not read; write the list as JSON");
      FD_RETURN_IF_ERROR(Value(rest, line.number, indent, false, depth, &text, &list.emplace_back()));
      continue;
    }
    const size_t colon = ColonOf(line.text);
    if (colon == std::string_view::npos) return ErrorAt(line.number, "expected a line such as key: value");
    std::string key;
    FD_RETURN_IF_ERROR(Key(line, colon, &key));
    if (map.Find(key) != nullptr) return ErrorAt(line.number, StrCat("'", key, "' is there twice"));
    Json item;
    FD_RETURN_IF_ERROR(Value(line.text.substr(colon + 1), line.number, indent, true, depth, &text, &item));
    map.Set(key, std::move(item));
  }
  *value = is_list ? Json(std::move(list)) : Json(std::move(map));
  return OkStatus();
}

StatusOr<std::vector<ConfigEntry>> ConfigParser::Entries() {
  std::vector<ConfigEntry> entries;
  while (!done()) {
    const Line line = lines_[at_++];
    if (line.indent != 0) return ErrorAt(line.number, "the first keys stand at the beginning of their lines");
    const size_t colon = ColonOf(line.text);
    if (colon == std::string_view::npos) return ErrorAt(line.number, "expected a line such as port: 8180");
    ConfigEntry entry;
    entry.line = line.number;
    FD_RETURN_IF_ERROR(Key(line, colon, &entry.key));
    for (const ConfigEntry& other : entries) {
      if (other.key == entry.key)
        return ErrorAt(line.number, StrCat("'", entry.key, "' stands in line ", other.line, " already"));
    }
    FD_RETURN_IF_ERROR(
        Value(line.text.substr(colon + 1), line.number, 0, true, 0, &entry.text, &entry.value));
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::string FlagName(std::string name) {
  name.erase(0, std::min(name.find_first_not_of('-'), name.size()));
  name = name.substr(0, name.find('='));
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string TextOf(const Json& value) { return value.is_string() ? value.as_string() : WriteJson(value); }

// What the command line says: its flags, whether it names a model in front, and the file of --config.
struct CommandLine {
  std::set<std::string> flags;
  std::string config;
};
CommandLine Scan(const FlagSet& flags, const std::vector<std::string>& args) {
  CommandLine line;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--" || !arg.starts_with("--")) {
      line.flags.insert("model");
      continue;
    }
    const std::string name = FlagName(arg);
    line.flags.insert(name);
    const size_t equals = arg.find('=');
    const FlagKind kind = flags.KindOf(name);
    const bool value_follows =
        equals == std::string::npos && (kind == FlagKind::kValue || kind == FlagKind::kList);
    if (name == "config")
      line.config = equals != std::string::npos ? arg.substr(equals + 1)
                    : i + 1 < args.size()       ? args[i + 1]
                                                : "";
    if (value_follows) ++i;
  }
  return line;
}

// YAML 1.1's booleans, which a reader of Python's takes too.
StatusOr<bool> SwitchOf(const ConfigEntry& entry) {
  const std::string text =
      LowerAscii(entry.value.is_bool() ? (entry.value.as_bool() ? "true" : "false") : entry.text);
  if (text == "true" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "no" || text == "off") return false;
  return ErrorAt(entry.line, StrCat(entry.key, " is a switch: true or false; got ", TextOf(entry.value)));
}

Status AppendFlag(const FlagSet& flags, const ConfigEntry& entry, std::vector<std::string>* out) {
  const std::string flag = "--" + FlagName(entry.key);
  if (entry.value.is_null()) return OkStatus();  // as if the line were not there
  switch (flags.KindOf(entry.key)) {
    case FlagKind::kUnknown: {
      const std::string near = flags.NearestFlag(FlagName(entry.key));
      return ErrorAt(entry.line, StrCat("there is no flag ", flag,
                                        near.empty() ? std::string("; see --help")
                                                     : StrCat("; did you mean ", near, "?")));
    }
    case FlagKind::kSwitch: {
      FD_ASSIGN_OR_RETURN(const bool on, SwitchOf(entry));
      if (on) out->push_back(flag);
      return OkStatus();
    }
    case FlagKind::kList:
      if (entry.value.is_array()) {
        for (const Json& item : entry.value.as_array()) out->push_back(StrCat(flag, "=", TextOf(item)));
        return OkStatus();
      }
      break;
    case FlagKind::kValue:
      break;
  }
  std::string text = entry.text;
  if (entry.value.is_array()) {
    std::vector<std::string> items;
    for (const Json& item : entry.value.as_array()) items.push_back(TextOf(item));
    text = Join(items, ",");
  } else if (entry.value.is_object()) {
    text = WriteJson(entry.value);
  }
  out->push_back(StrCat(flag, "=", text));
  return OkStatus();
}

}  // namespace

StatusOr<std::vector<ConfigEntry>> ParseConfig(std::string_view text) {
  ConfigParser parser;
  FD_RETURN_IF_ERROR(parser.Read(text));
  return parser.Entries();
}

Status ExpandConfigFile(const FlagSet& flags, std::vector<std::string>* args) {
  const CommandLine line = Scan(flags, *args);
  if (line.config.empty()) return OkStatus();
  const std::string where = StrCat("--config ", line.config);
  if (!FileExists(line.config)) return InvalidArgument(StrCat(where, ": there is no such file"), "--config");
  FD_ASSIGN_OR_RETURN(const std::string text, ReadFile(line.config, kMaxFileBytes));
  StatusOr<std::vector<ConfigEntry>> entries = ParseConfig(text);
  if (!entries.ok()) return entries.status().WithContext(where);
  std::vector<std::string> expanded;
  for (const ConfigEntry& entry : *entries) {
    const std::string name = FlagName(entry.key);
    if (name == "config" || name == "help")
      return ErrorAt(entry.line, StrCat(name, " has no place in the file")).WithContext(where);
    if (line.flags.contains(name)) continue;
    if (Status s = AppendFlag(flags, entry, &expanded); !s.ok()) return s.WithContext(where);
  }
  args->insert(args->begin(), expanded.begin(), expanded.end());
  return OkStatus();
}

}  // namespace fd
