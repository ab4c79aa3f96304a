#include "server/chat/tool_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/strings.h"
#include "server/chat/markers.h"
#include "server/chat/parser_names.h"

namespace fd {
namespace {

constexpr NamedFormat<ToolFormat> kFormats[] = {
    {"ernie-x1", ToolFormat::kErnieX1},
    {"ernie-45-vl-thinking", ToolFormat::kErnie45VlThinking},
    {"ernie_45-vl-thinking", ToolFormat::kErnie45VlThinking, true},
    {"hermes", ToolFormat::kHermes},
    {"qwen", ToolFormat::kHermes},
};

constexpr std::string_view kSpaces = " \t\r\n";

// The end of the string that begins at text[begin] == '"', behind its quote.
size_t SkipString(std::string_view text, size_t begin) {
  for (size_t i = begin + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      return i + 1;
    }
  }
  return text.size();
}

// The text of a member of the object that `text` is, which is valid JSON. Empty when the key is not there in
// this spelling.
std::string_view MemberText(std::string_view text, std::string_view quoted_key) {
  int depth = 0;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '"') {
      const size_t end = SkipString(text, i);
      const std::string_view key = text.substr(i, end - i);
      i = end;
      if (depth != 1 || key != quoted_key) continue;
      const size_t colon = text.find_first_not_of(kSpaces, end);
      if (colon == std::string_view::npos || text[colon] != ':') continue;  // a value
      // The value: up to the comma or brace on this level.
      const size_t begin = text.find_first_not_of(kSpaces, colon + 1);
      int inner = 0;
      for (size_t k = begin; k < text.size();) {
        if (text[k] == '"') {
          k = SkipString(text, k);
          continue;
        }
        if (inner == 0 && (text[k] == ',' || text[k] == '}')) return Trim(text.substr(begin, k - begin));
        if (text[k] == '{' || text[k] == '[') ++inner;
        if (text[k] == '}' || text[k] == ']') --inner;
        ++k;
      }
      return {};
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') --depth;
    ++i;
  }
  return {};
}

std::optional<ToolCall> ReadCall(std::string_view text) {
  const StatusOr<Json> json = ParseJson(text);
  if (!json.ok() || !json->is_object()) return std::nullopt;
  const Json* name = json->Find("name");
  if (name == nullptr || !name->is_string() || name->as_string().empty()) return std::nullopt;
  ToolCall call;
  call.name = name->as_string();
  const Json* arguments = json->Find("arguments");
  if (arguments == nullptr || arguments->is_null()) {
    call.arguments = "{}";
  } else if (arguments->is_object()) {
    call.arguments = MemberText(text, "\"arguments\"");
    if (call.arguments.empty()) call.arguments = WriteJson(*arguments);
  } else if (arguments->is_string()) {  // written as JSON in a string
    const StatusOr<Json> inner = ParseJson(arguments->as_string());
    if (!inner.ok() || !inner->is_object()) return std::nullopt;
    call.arguments = arguments->as_string();
  } else {
    return std::nullopt;
  }
  return call;
}

}  // namespace

StatusOr<ToolFormat> ToolFormatNamed(const std::string& name) {
  if (name.empty()) return ToolFormat::kNone;
  return FormatNamed(kFormats, name, "--tool-call-parser");
}

std::vector<std::string_view> ToolMarkers(ToolFormat format) {
  if (format == ToolFormat::kNone) return {};
  return {kToolCallOpen, kToolCallClose};
}

ToolParser::Piece ToolParser::Push(std::string_view text) {
  if (format_ == ToolFormat::kNone) return {std::string(text), {}};
  pending_ += text;
  return Run(false);
}

ToolParser::Piece ToolParser::Finish() { return Run(true); }

ToolParser::Piece ToolParser::Run(bool at_end) {
  Piece piece;
  std::string_view rest = pending_;
  while (!rest.empty() && (in_body_ ? StepBody(rest, piece, at_end) : StepText(rest, piece, at_end))) {
  }
  pending_.erase(0, pending_.size() - rest.size());
  if (!at_end) return piece;
  if (in_body_) Close(/*with_marker=*/false, piece);
  if (!found_call_) piece.content += held_;
  held_.clear();
  return piece;
}

// Content up to the next call; false: the rest has to wait.
bool ToolParser::StepText(std::string_view& rest, Piece& piece, bool at_end) {
  if (quiet_) {
    const size_t count = std::min(rest.find_first_not_of(kSpaces), rest.size());
    held_ += rest.substr(0, count);
    rest.remove_prefix(count);
    if (rest.empty()) return false;
  }
  if (!quiet_ && format_ == ToolFormat::kErnie45VlThinking) {
    piece.content += rest;
    rest = {};
    return false;
  }
  const FoundMarker found = FindMarker(rest, {kToolCallOpen}, at_end);
  if (found.position > 0) {
    piece.content += std::exchange(held_, {});
    piece.content += rest.substr(0, found.position);
    rest.remove_prefix(found.position);
    quiet_ = false;
    return true;
  }
  if (found.marker.empty()) return false;
  rest.remove_prefix(found.marker.size());
  Open();
  return true;
}

void ToolParser::Open() {
  in_body_ = true;
  body_.clear();
  in_string_ = escaped_ = broken_ = false;
}

bool ToolParser::StepBody(std::string_view& rest, Piece& piece, bool at_end) {
  size_t i = 0;
  for (; i < rest.size(); ++i) {
    const char c = rest[i];
    if (in_string_) {
      if (c == '\n') {
        broken_ = true;
        in_string_ = false;
      } else if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
      continue;
    }
    if (c == '"') in_string_ = !broken_;
    if (c != '<') continue;
    const MarkerMatch close = MatchMarker(rest.substr(i), kToolCallClose);
    const MarkerMatch open = MatchMarker(rest.substr(i), kToolCallOpen);
    if (close == MarkerMatch::kYes || open == MarkerMatch::kYes) {
      body_ += rest.substr(0, i);
      const bool closed = close == MarkerMatch::kYes;
      rest.remove_prefix(i + (closed ? kToolCallClose : kToolCallOpen).size());
      Close(closed, piece);
      // Another one begins where the first was never closed.
      if (!closed) {
        if (quiet_ || format_ != ToolFormat::kErnie45VlThinking) {
          Open();
        } else {
          piece.content += kToolCallOpen;
        }
      }
      return true;
    }
    if (!at_end && (close == MarkerMatch::kPartial || open == MarkerMatch::kPartial)) break;
  }
  body_ += rest.substr(0, i);
  rest.remove_prefix(i);
  return false;
}

void ToolParser::Close(bool with_marker, Piece& piece) {
  in_body_ = false;
  std::optional<ToolCall> call;
  if (with_marker || format_ != ToolFormat::kErnieX1) call = ReadCall(body_);
  if (!call && with_marker && format_ == ToolFormat::kErnie45VlThinking) {
    call = ReadCall(StrCat(Trim(body_), "}"));
  }
  if (call) {
    call->content_offset = piece.content.size();
    piece.calls.push_back(std::move(*call));
    held_.clear();
    quiet_ = found_call_ = true;
  } else {
    piece.content +=
        StrCat(std::exchange(held_, {}), kToolCallOpen, body_, with_marker ? kToolCallClose : "");
    quiet_ = false;
  }
  body_.clear();
}

}  // namespace fd
