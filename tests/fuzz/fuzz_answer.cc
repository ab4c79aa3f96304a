// Any bytes as what a model says, token by token: through the detokenizer with stop strings, then the
// reasoning and the tool-call parser. However the bytes are cut into tokens, the result is the same; it is
// UTF-8, and a stop string is where a plain search finds it.
//
// The first four bytes choose the formats, the stop strings and the cuts; a seed begins with four printable
// bytes.
#include <iterator>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/utf8.h"
#include "fuzz_service.h"
#include "server/chat/reasoning_parser.h"
#include "server/chat/tool_parser.h"
#include "server/text/detokenizer.h"

namespace {

using fd::fuzz::Require;

constexpr fd::ReasoningFormat kReasoning[] = {fd::ReasoningFormat::kNone, fd::ReasoningFormat::kErnie45Vl,
                                              fd::ReasoningFormat::kErnie45VlThinking,
                                              fd::ReasoningFormat::kErnieX1, fd::ReasoningFormat::kQwen3};
constexpr fd::ReasoningStart kStarts[] = {fd::ReasoningStart::kReasoning, fd::ReasoningStart::kAnswer,
                                          fd::ReasoningStart::kModel};
constexpr fd::ToolFormat kTools[] = {fd::ToolFormat::kNone, fd::ToolFormat::kErnieX1,
                                     fd::ToolFormat::kErnie45VlThinking, fd::ToolFormat::kHermes};
const std::vector<std::string> kStops[] = {
    {}, {"\n\n"}, {"aab", "ab"}, {"</tool_call>", "</"}, {"\xE4\xBD\xA0", "\xEF\xBF\xBD!"}, {"aaaa", "aa"}};

// Tokens of several bytes: the pieces of one text.
class PieceTokenizer : public fd::ByteTokenizer {
 public:
  std::vector<std::string> pieces;
  std::string TokenBytes(int32_t id, bool /*skip_special*/) const override {
    return pieces[static_cast<size_t>(id)];
  }
};

struct Answer {
  std::string text, reasoning, content, calls;
  bool stopped = false;
  bool operator==(const Answer&) const = default;
};

struct Formats {
  fd::ReasoningFormat reasoning;
  fd::ReasoningStart start;
  fd::ToolFormat tools;
  const std::vector<std::string>& stops;
};

Answer Run(const std::vector<std::string>& pieces, const Formats& formats) {
  PieceTokenizer tokenizer;
  tokenizer.pieces = pieces;
  fd::Detokenizer detokenizer(&tokenizer, false, formats.stops);
  fd::ReasoningParser reasoning(formats.reasoning, formats.start);
  fd::ToolParser tools(formats.tools);
  Answer answer;
  const auto take = [&answer](fd::ToolParser::Piece piece) {
    Require(fd::IsValidUtf8(piece.content), "content is UTF-8");
    answer.content += piece.content;
    for (const fd::ToolCall& call : piece.calls) {
      const auto arguments = fd::ParseJson(call.arguments);
      Require(!call.name.empty() && arguments.ok() && arguments->is_object(), "a call is a valid one");
      answer.calls += call.name + "(" + call.arguments + ")";
    }
  };
  const auto push = [&](const std::string& text) {
    Require(fd::IsValidUtf8(text), "text is UTF-8");
    answer.text += text;
    const fd::ReasoningParser::Piece piece = reasoning.Push(text);
    Require(fd::IsValidUtf8(piece.reasoning), "reasoning is UTF-8");
    Require(piece.reasoning.empty() || answer.content.empty(), "no reasoning after the answer began");
    answer.reasoning += piece.reasoning;
    take(tools.Push(piece.answer));
  };
  for (size_t i = 0; i < pieces.size() && !detokenizer.stopped(); ++i)
    push(detokenizer.Push(static_cast<int32_t>(i)));
  answer.stopped = detokenizer.stopped();
  push(detokenizer.Flush());
  const fd::ReasoningParser::Piece rest = reasoning.Finish();
  answer.reasoning += rest.reasoning;
  take(tools.Push(rest.answer));
  take(tools.Finish());
  return answer;
}

// Where the first stop string ends decides, then the longest.
std::optional<std::string> CutAtStop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (end >= stop.size() && text.compare(end - stop.size(), stop.size(), stop) == 0)
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return std::nullopt;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4) return 0;
  const Formats formats{kReasoning[data[0] % std::size(kReasoning)],
                        kStarts[data[0] / std::size(kReasoning) % std::size(kStarts)],
                        kTools[data[1] % std::size(kTools)], kStops[data[2] % std::size(kStops)]};
  const std::string said(reinterpret_cast<const char*>(data) + 4, size - 4);
  std::minstd_rand random(data[3] + 1u);
  std::vector<std::string> bytes, cut;
  for (size_t at = 0; at < said.size(); ++at) bytes.push_back(said.substr(at, 1));
  for (size_t at = 0; at < said.size();) {
    cut.push_back(said.substr(at, 1 + random() % 9));
    at += cut.back().size();
  }
  const Answer whole =
      Run(said.empty() ? std::vector<std::string>{} : std::vector<std::string>{said}, formats);
  const std::string text = fd::ReplaceInvalidUtf8(said);
  const std::optional<std::string> until_stop = CutAtStop(text, formats.stops);
  Require(whole.stopped == until_stop.has_value() && whole.text == until_stop.value_or(text),
          "the text is what a plain search leaves");
  Require(Run(bytes, formats) == whole, "byte by byte the same answer");
  Require(Run(cut, formats) == whole, "cut anywhere the same answer");
  return 0;
}
