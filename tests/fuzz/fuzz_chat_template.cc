// A chat template of the operator's or a request's own, and chat_template_kwargs: the first line is the
// kwargs, the rest the template's text, over a conversation with tools: an error, or pieces of a prompt.
// Whatever the template does, a character that only messages, tools and kwargs hold stands in pieces that are
// marked as theirs.
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/utf8.h"
#include "flag_set.h"
#include "fuzz_require.h"
#include "server/chat/chat_template.h"

namespace {

using fd::fuzz::Require;

constexpr std::string_view kUsers = "\xEE\x80\x80";  // U+E000

fd::Json Parsed(std::string_view json) {
  auto parsed = fd::ParseJson(json);
  Require(parsed.ok(), "the conversation is JSON");
  return std::move(parsed).value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const fd::Json* const messages = new fd::Json(Parsed(
      R"([{"role":"system","content":"s\ue000"},{"role":"user","content":[{"type":"text","text":"H\u00e9 \ue000 <b>\n"}]},
          {"role":"assistant","content":"<think>\ue000</think> 1,2","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"\ue000":1}}}]},
          {"role":"user","content":"\ue000A b\ue000"}])"));
  static const fd::Json* const tools = new fd::Json(Parsed(
      R"([{"type":"function","function":{"name":"f","description":"\ue000","parameters":{"type":"object"}}}])"));
  if (size > 4096) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t line = text.find('\n');
  if (line == std::string_view::npos || text.find('\0') != std::string_view::npos) return 0;
  const auto kwargs = fd::ParseObject(std::string(text.substr(0, line)), "{}");
  if (!kwargs.ok()) {
    Require(!kwargs.status().message().empty(), "an error says something");
    return 0;
  }
  const std::string source(text.substr(line + 1));
  const auto chat =
      fd::ChatTemplate::FromSource(source, fd::JsonObject{{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  if (!chat.ok()) {
    Require(!chat.status().message().empty(), "an error says something");
    return 0;
  }
  const fd::Status names = chat->CheckKwargs(*kwargs);
  const auto pieces = chat->Render(*messages, *tools, *kwargs, /*add_generation_prompt=*/true);
  Require(names.ok() || !pieces.ok(), "names that belong to the server are refused");
  if (!pieces.ok()) {
    Require(!pieces.status().param().empty(), "the error has a field");
    return 0;
  }
  const bool is_utf8 = fd::IsValidUtf8(text);
  // The template's own text may hold or make the character.
  const bool own = source.find(kUsers) != std::string::npos || source.find('\\') != std::string::npos;
  for (const fd::PromptPiece& piece : *pieces) {
    Require(!piece.text.empty(), "no piece is empty");
    Require(!is_utf8 || fd::IsValidUtf8(piece.text), "a piece is UTF-8");
    Require(own || piece.from_user || piece.text.find(kUsers) == std::string::npos,
            "what a user wrote is marked as a user's");
  }
  return 0;
}
