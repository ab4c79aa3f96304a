// Any bytes as the body of an endpoint that reads JSON, and the same bytes as a choice of fields and values,
// which get far further: a refusal that is the client's fault and can be shown, or a request that the engine
// may take without looking, and a reply that is well formed and the same streamed and whole.
//
// The first byte says where it goes: bits 0 to 3 the endpoint, 16 a vision model, 32 the body as it stands
// (else fields and values), 64 --strict-requests, 128 the engine fails. A seed file begins with one of
// " !\"#$%&'()" ("0" to "9" for a vision model), or with a byte below " " and pairs of bytes.
#include <deque>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "fuzz_service.h"
#include "reply_check.h"
#include "server/http/request_body.h"
#include "server/openai/embeddings.h"
#include "server/openai/errors.h"
#include "server/openai/generation.h"
#include "server/openai/request_schema.h"
#include "server/openai/tokenize.h"

namespace {

using fd::RequestKind;
using fd::RouteKind;
using fd::fuzz::FuzzModel;
using fd::fuzz::FuzzService;
using fd::fuzz::Require;
using fd::fuzz::RequireJson;

struct Target {
  RequestKind kind;
  RouteKind route;
  const char* path;
};
constexpr Target kTargets[] = {
    {RequestKind::kChat, RouteKind::kChat, "/v1/chat/completions"},
    {RequestKind::kCompletions, RouteKind::kCompletions, "/v1/completions"},
    {RequestKind::kTokenize, RouteKind::kTokenize, "/tokenize"},
    {RequestKind::kDetokenize, RouteKind::kDetokenize, "/detokenize"},
    {RequestKind::kAbort, RouteKind::kAbort, "/v1/abort_requests"},
    {RequestKind::kResponses, RouteKind::kResponses, "/v1/responses"},
    {RequestKind::kMessages, RouteKind::kMessages, "/v1/messages"},
    {RequestKind::kMessages, RouteKind::kCountMessagesTokens, "/v1/messages/count_tokens"},
    {RequestKind::kEmbeddings, RouteKind::kEmbeddings, "/v1/embeddings"},
    {RequestKind::kPooling, RouteKind::kPooling, "/pooling"},
};

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
    "\"float\"",
    "\"base64\"",
    "{\"type\":\"auto\"}",
    "{\"type\":\"adaptive\",\"display\":\"omitted\"}",
    "{\"type\":\"enabled\",\"budget_tokens\":1}",
    "{\"effort\":\"low\",\"summary\":\"auto\"}",
    "{\"format\":{\"type\":\"text\"},\"verbosity\":\"high\"}",
    "[\"message.output_text.logprobs\"]",
    "[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]",
    "[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"},\"strict\":false}]",
    "[{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
    "\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\","
    "\"id\":"
    "\"1\",\"name\":\"f\",\"input\":{\"a\":1}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
    "\"tool_use_id\":\"1\",\"content\":[{\"type\":\"text\",\"text\":\"r\"}]}]}]",
    "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
    "\"image/png\",\"data\":\"AAAA\"}}]}]",
    "[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"q\"}]},{"
    "\"type\":"
    "\"reasoning\",\"summary\":[],\"content\":[{\"type\":\"reasoning_text\",\"text\":\"t\"}]},{\"type\":"
    "\"function_call\",\"call_id\":\"1\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":"
    "\"function_call_output\",\"call_id\":\"1\",\"output\":\"r\"}]",
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

// The error as the client of this path reads it.
void RequireRefusal(const Target& target, const fd::Status& status) {
  const fd::ApiError error = fd::ToApiError(status);
  Require(error.http_status >= 400 && error.http_status < 500, "the fault is the client's");
  Require(!error.message.empty() && error.message.size() < 4096, "the message has a bounded length");
  Require(fd::IsValidUtf8(error.message), "the message is UTF-8");
  for (const char c : error.message)
    Require(static_cast<unsigned char>(c) >= ' ' && c != '\x7f', "the message has no control characters");
  fd::HttpRequest request;
  request.path = target.path;
  const fd::Json json = RequireJson(fd::ErrorBody(request, error), "the error object is JSON");
  Require(fd::fuzz::TextAt(fd::fuzz::At(json, "error"), "message") == error.message, "it has the message");
}

void RequireIgnoredHeader(const std::vector<std::string>& names) {
  const std::string header = fd::IgnoredHeader(names);
  Require(header.size() < 2048, "the header of ignored fields is bounded");
  for (const char c : header) Require(c >= ' ' && c <= '~', "the header of ignored fields is plain");
}

fd::Json ContentOf(const Target& target, const std::vector<fd::fuzz::SseEvent>& events, int num_choices) {
  if (target.route == RouteKind::kMessages) return fd::fuzz::MessageOf(events);
  if (target.route == RouteKind::kResponses) return fd::fuzz::ResponseOf(events);
  return fd::fuzz::CompletionOf(events, num_choices);
}

fd::Json ContentOf(const Target& target, const fd::Json& reply) {
  if (target.route == RouteKind::kMessages) return fd::fuzz::MessageOf(reply);
  if (target.route == RouteKind::kResponses) return fd::fuzz::WithoutChance(reply);
  return fd::fuzz::CompletionOf(reply);
}

// What the client reads of the reply; null where there is none.
fd::Json Reply(const Target& target, fd::Generation& generation, fd::ReplyWriter& writer, bool fails) {
  std::vector<std::pair<int, fd::TokenEvent>> events;
  Require(generation
              .Submit([&events](int choice, fd::TokenEvent&& event) {
                events.emplace_back(choice, std::move(event));
              })
              .ok(),
          "Submit");
  const bool stream = generation.reply().stream;
  std::string sse;
  for (auto& [choice, event] : events) {
    const fd::Delta delta = generation.Push(choice, std::move(event));
    Require(fd::IsValidUtf8(delta.content) && fd::IsValidUtf8(delta.reasoning_content), "deltas are UTF-8");
    if (stream && !delta.empty()) writer.Push(generation, choice, delta, sse);
    if (!generation.status().ok()) break;
  }
  if (!generation.status().ok()) {
    Require(fails, "the engine did not fail");
    if (stream) writer.Fail(generation, fd::ToApiError(generation.status()), sse);
    fd::fuzz::ReadEvents(sse);
    return {};
  }
  Require(generation.finished(), "every choice ends");
  if (!stream) return ContentOf(target, RequireJson(writer.ReplyJson(generation), "the reply is JSON"));
  writer.Finish(generation, sse);
  return ContentOf(target, fd::fuzz::ReadEvents(sse), generation.num_choices());
}

struct Prepared {
  std::unique_ptr<fd::Generation> generation;  // null: refused, or there are media
  std::unique_ptr<fd::ReplyWriter> writer;
};

Prepared Prepare(const fd::Service& service, const Target& target, fd::StatusOr<fd::TranslatedRequest> read) {
  if (!read.ok()) return RequireRefusal(target, read.status()), Prepared{};
  Require(read->writer != nullptr, "a request has a writer");
  Prepared out;
  out.writer = std::move(read->writer);
  RequireIgnoredHeader(read->ignored_fields);
  auto draft = fd::Generation::Parse(service, read->endpoint, std::move(read->body), "scope",
                                     fd::Clock::now(), read->id_prefix);
  if (!draft.ok()) return RequireRefusal(target, out.writer->Restate(draft.status())), Prepared{};
  RequireRefusal(target, (*draft)->TimedOut());
  if ((*draft)->has_media()) {
    const fd::MediaRequest media = (*draft)->TakeMedia();
    Require(!media.items.empty() && media.items.size() <= 8, "as many media as are allowed");
    return {};
  }
  auto made = fd::Generation::Finish(std::move(*draft), fd::LoadedMedia{});
  if (!made.ok()) return RequireRefusal(target, out.writer->Restate(made.status())), Prepared{};
  out.generation = std::move(*made);
  RequireIgnoredHeader(out.generation->ignored_fields());
  RequireJson(out.generation->RenderJson(), "the rendered prompt is JSON");
  return out;
}

// The body, and once more with the other value of "stream".
void Generate(const fd::Service& service, const Target& target, const std::string& body, bool fails) {
  Prepared first = Prepare(service, target, fd::ReadRequestBody(service, target.route, body));
  if (first.generation == nullptr) return;
  const bool stream = first.generation->reply().stream;
  const fd::Json content = Reply(target, *first.generation, *first.writer, fails);
  fd::Json other = *fd::ParseJson(body);
  if (other.as_object().Find("stream_options") != nullptr) return;  // streams alone have them
  other.as_object().Set("stream", !stream);
  Prepared second =
      Prepare(service, target, fd::ReadRequestBody(service, target.route, fd::WriteJson(other)));
  // In FastDeploy's places there may be another "stream".
  if (second.generation == nullptr || second.generation->reply().stream == stream) return;
  const fd::Json again = Reply(target, *second.generation, *second.writer, fails);
  if (!(content == again))
    std::fprintf(stderr, "%s\n%s\n", fd::WriteJson(content).c_str(), fd::WriteJson(again).c_str());
  Require(content == again, "streamed and whole the same reply");
}

void Count(const fd::Service& service, const Target& target, const std::string& body) {
  fd::Service counting = service;
  counting.max_model_len = std::numeric_limits<int32_t>::max();  // as ServerState::unbounded
  Prepared prepared = Prepare(counting, target, fd::ReadRequestBody(counting, target.route, body));
  Require(prepared.generation == nullptr || !prepared.generation->first_prompt().empty(), "tokens to count");
}

void Embed(const fd::Service& service, const Target& target, const std::string& body, bool fails) {
  auto draft = fd::Embedding::Parse(service, target.kind, body, "scope", fd::Clock::now());
  if (!draft.ok()) return RequireRefusal(target, draft.status());
  Require(!(*draft)->has_media(), "this model takes no media");
  auto made = fd::Embedding::Finish(std::move(*draft), fd::LoadedMedia{});
  if (!made.ok()) return RequireRefusal(target, made.status());
  fd::Embedding& embedding = **made;
  RequireIgnoredHeader(embedding.ignored_fields());
  std::deque<std::pair<int, fd::TokenEvent>> events;  // Push starts further inputs
  Require(embedding
              .Submit([&events](int input, fd::TokenEvent&& event) {
                events.emplace_back(input, std::move(event));
              })
              .ok(),
          "Submit");
  for (; !events.empty() && embedding.status().ok(); events.pop_front())
    embedding.Push(events.front().first, std::move(events.front().second));
  Require(embedding.status().ok() != fails, "fails with the engine");
  if (fails) return;
  Require(embedding.finished(), "every input ends");
  const fd::Json reply = RequireJson(embedding.ReplyJson(), "the reply is JSON");
  Require(!fd::fuzz::At(reply, "data").as_array().empty(), "it has vectors");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static fd::fuzz::InstantEngine engine("hello");
  static const auto text = FuzzService(engine, FuzzModel::kText);
  static const auto vision = FuzzService(engine, FuzzModel::kVision);
  static const auto pooling = FuzzService(engine, FuzzModel::kPooling);
  if (size == 0) return 0;
  const Target& target = kTargets[(data[0] & 15) % std::size(kTargets)];
  const bool embeds = target.kind == RequestKind::kEmbeddings || target.kind == RequestKind::kPooling;
  fd::Service& service = embeds ? *pooling : (data[0] & 16) != 0 ? *vision : *text;
  service.strict_requests = (data[0] & 64) != 0;
  const bool fails = (data[0] & 128) != 0;
  engine.SetFailAfter(fails ? 2 : -1);
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  engine.SetScript(rest.substr(0, 40));
  const std::string body =
      (data[0] & 32) == 0 ? FromTokens(data + 1, size - 1, target.kind) : std::string(rest);
  if (embeds) {
    Embed(service, target, body, fails);
    return 0;
  }
  switch (target.route) {
    case RouteKind::kTokenize: {
      auto work = fd::Tokenize(service, body);
      if (!work.ok()) {
        RequireRefusal(target, work.status());
      } else if (work->chat) {
        Generate(service, kTargets[0], fd::WriteJson(*work->chat), fails);
      } else {
        RequireJson(work->reply, "the reply is JSON");
      }
      break;
    }
    case RouteKind::kDetokenize: {
      const auto reply = fd::Detokenize(service, body);
      if (reply.ok()) {
        RequireJson(reply->json, "the reply is JSON");
      } else {
        RequireRefusal(target, reply.status());
      }
      break;
    }
    case RouteKind::kAbort:
      if (const auto work = fd::ReadAbort(body); !work.ok()) RequireRefusal(target, work.status());
      break;
    case RouteKind::kCountMessagesTokens:
      Count(service, target, body);
      break;
    default:
      Generate(service, target, body, fails);
  }
  return 0;
}
