// Any bytes as the body of an endpoint that reads JSON, and the same bytes as a choice of fields and values,
// which get far further: a refusal that is the client's fault and can be shown, or a request that the engine
// may take without looking, and a reply that is JSON.
//
// The first byte says where it goes: bits 0 to 2 the endpoint, 8 a vision model, 16 fields and values, 64
// --strict-requests; so a seed file begins with one of " !\"#$(".
#include <iterator>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "fuzz_service.h"
#include "server/openai/errors.h"
#include "server/openai/generation.h"
#include "server/openai/openai_writer.h"
#include "server/openai/request_schema.h"
#include "server/openai/tokenize.h"

namespace {

using fd::RequestKind;
using fd::fuzz::Require;
constexpr RequestKind kKinds[] = {RequestKind::kChat, RequestKind::kCompletions, RequestKind::kTokenize,
                                  RequestKind::kDetokenize, RequestKind::kAbort};

const char* const kValues[] = {
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "20",
    "100",
    "258",
    "259",
    "512",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "1e300",
    "5e-324",
    "0.5",
    "1.5",
    "1e-6",
    "\"\"",
    "\"a\"",
    "\"tiny\"",
    "\"none\"",
    "\"auto\"",
    "\"required\"",
    "\"\\u0000\\n\"",
    "\"\xE4\xBD\xA0\xE5\xA5\xBD\xF0\x9F\x98\x80\"",
    "[]",
    "[[]]",
    "[1]",
    "[-1]",
    "[259]",
    "[1,2,3]",
    "[[1,2],[3]]",
    "[\"a\",\"\"]",
    "[\"a\",\"bc\"]",
    "[null]",
    "{}",
    "{\"1\":5}",
    "{\"259\":1,\"x\":2}",
    "{\"type\":\"text\"}",
    "{\"type\":\"json_object\"}",
    "{\"include_usage\":true,\"continuous_usage_stats\":true}",
    "{\"enable_thinking\":true}",
    "{\"enable_thinking\":false,\"reasoning_max_tokens\":3}",
    "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}",
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}]",
    "[{\"role\":\"user\",\"content\":\"Hi\"}]",
    "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\"}]}]",
    "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/"
    "png;base64,AAAA\"}},{\"type\":\"video\",\"video\":\"http://x/y\"}]}]",
    "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\","
    "\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\","
    "\"arguments\":\"{\\\"a\\\":[1]}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"r\"}]",
    "[{\"role\":\"assistant\",\"content\":\"<think>a</think>b\"},{\"role\":\"user\",\"content\":\"c\"}]",
};

std::string FromTokens(const uint8_t* data, size_t size, RequestKind kind) {
  const std::vector<fd::RequestField> fields = fd::FieldsOf(kind);
  std::vector<bool> taken(fields.size(), false);
  std::string body = "{";
  const auto add = [&](const std::string& name, const std::string& value) {
    if (body.size() > 1) body += ',';
    fd::AppendJsonString(body, name);
    body += ":" + value;
  };
  for (size_t i = 0; i + 1 < size; i += 2) {
    const size_t at = data[i] % (fields.size() + 1);
    const char* value = kValues[data[i + 1] % std::size(kValues)];
    if (at == fields.size()) {
      add(fd::StrCat("unknown_", i), value);
    } else if (!taken[at]) {
      taken[at] = true;
      add(fields[at].name, value);
    }
  }
  return body + "}";
}

void RequireRefusal(const fd::Status& status) {
  const fd::ApiError error = fd::ToApiError(status);
  Require(error.http_status >= 400 && error.http_status < 500, "the fault is the client's");
  Require(!error.message.empty() && error.message.size() < 4096, "the message has a bounded length");
  Require(fd::IsValidUtf8(error.message), "the message is UTF-8");
  for (const char c : error.message)
    Require(static_cast<unsigned char>(c) >= ' ' && c != '\x7f', "the message has no control characters");
  const auto json = fd::ParseJson(fd::ErrorJson(error));
  Require(json.ok() && json->Find("error") != nullptr, "the error object is JSON");
}

void RequireJson(const std::string& text, const char* what) { Require(fd::ParseJson(text).ok(), what); }

void RequireIgnoredHeader(const std::vector<std::string>& names) {
  const std::string header = fd::IgnoredHeader(names);
  Require(header.size() < 2048, "the header of ignored fields is bounded");
  for (const char c : header) Require(c >= ' ' && c <= '~', "the header of ignored fields is plain");
}

// "data: JSON" or "data: [DONE]", each followed by an empty line.
void RequireEvents(std::string_view sse) {
  while (!sse.empty()) {
    Require(sse.starts_with("data: "), "an event begins with data");
    const size_t end = sse.find("\n\n");
    Require(end != std::string_view::npos, "an event ends with an empty line");
    const std::string_view data = sse.substr(6, end - 6);
    if (data != "[DONE]") RequireJson(std::string(data), "an event is JSON");
    sse.remove_prefix(end + 2);
  }
}

void Generate(const fd::Service& service, fd::ApiEndpoint endpoint, const std::string& body) {
  auto draft = fd::Generation::Parse(service, endpoint, std::string_view(body), "scope", fd::Clock::now());
  if (!draft.ok()) return RequireRefusal(draft.status());
  if ((*draft)->has_media()) {
    const fd::MediaRequest media = (*draft)->TakeMedia();
    Require(!media.items.empty() && media.items.size() <= 8, "as many media as are allowed");
    return;
  }
  auto made = fd::Generation::Finish(std::move(*draft), fd::LoadedMedia{});
  if (!made.ok()) return RequireRefusal(made.status());
  fd::Generation& generation = **made;
  RequireIgnoredHeader(generation.ignored_fields());
  RequireJson(generation.RenderJson(), "the rendered prompt is JSON");
  std::vector<std::pair<int, fd::TokenEvent>> events;
  Require(generation
              .Submit([&events](int choice, fd::TokenEvent&& event) {
                events.emplace_back(choice, std::move(event));
              })
              .ok(),
          "Submit");
  const std::unique_ptr<fd::ReplyWriter> writer = fd::MakeOpenAiWriter();
  for (auto& [choice, event] : events) {
    const fd::Delta delta = generation.Push(choice, std::move(event));
    Require(fd::IsValidUtf8(delta.content) && fd::IsValidUtf8(delta.reasoning_content), "deltas are UTF-8");
    if (delta.empty()) continue;
    std::string sse;
    writer->Push(generation, choice, delta, sse);
    RequireEvents(sse);
  }
  Require(generation.finished() && generation.status().ok(), "every choice ends");
  std::string sse;
  writer->Finish(generation, sse);
  RequireEvents(sse);
  RequireJson(writer->ReplyJson(generation), "the reply is JSON");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fd::fuzz::InstantEngine engine("hello");
  static const auto text = fd::fuzz::FuzzService(engine, /*vision=*/false);
  static const auto vision = fd::fuzz::FuzzService(engine, /*vision=*/true);
  if (size == 0) return 0;
  const RequestKind kind = kKinds[(data[0] & 7) % std::size(kKinds)];
  fd::Service& service = (data[0] & 8) != 0 ? *vision : *text;
  service.strict_requests = (data[0] & 64) != 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  engine.SetScript(rest.substr(0, 40));
  const std::string body = (data[0] & 16) != 0 ? FromTokens(data + 1, size - 1, kind) : std::string(rest);
  switch (kind) {
    case RequestKind::kChat:
      Generate(service, fd::ApiEndpoint::kChat, body);
      break;
    case RequestKind::kCompletions:
      Generate(service, fd::ApiEndpoint::kCompletions, body);
      break;
    case RequestKind::kTokenize: {
      auto work = fd::Tokenize(service, body);
      if (!work.ok()) {
        RequireRefusal(work.status());
      } else if (work->chat) {
        Generate(service, fd::ApiEndpoint::kChat, fd::WriteJson(*work->chat));
      } else {
        RequireJson(work->reply, "the reply is JSON");
      }
      break;
    }
    case RequestKind::kDetokenize: {
      const auto reply = fd::Detokenize(service, body);
      reply.ok() ? RequireJson(reply->json, "the reply is JSON") : RequireRefusal(reply.status());
      break;
    }
    case RequestKind::kAbort:
      if (const auto work = fd::ReadAbort(body); !work.ok()) RequireRefusal(work.status());
      break;
  }
  return 0;
}
