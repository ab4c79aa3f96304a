// What a client reads of a reply, streamed or whole: that it is well formed, and its content in one form for
// both, without what differs by chance (ids, times), so that the two can be compared.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "fuzz_service.h"

namespace fd::fuzz {

struct SseEvent {
  std::string name;  // "" where there is none
  Json data;         // null of "[DONE]"
  bool done = false;
};

inline Json RequireJson(std::string_view text, const char* what) {
  StatusOr<Json> json = ParseJson(text);
  if (!json.ok()) std::fprintf(stderr, "%s: %.*s\n", what, static_cast<int>(text.size()), text.data());
  Require(json.ok(), what);
  return std::move(json).value();
}

// Whole events; each is a name, where there is one, and one line of JSON.
inline std::vector<SseEvent> ReadEvents(std::string_view sse) {
  std::vector<SseEvent> events;
  while (!sse.empty()) {
    const size_t end = sse.find("\n\n");
    Require(end != std::string_view::npos, "an event ends with an empty line");
    std::string_view event = sse.substr(0, end);
    sse.remove_prefix(end + 2);
    SseEvent& out = events.emplace_back();
    if (event.starts_with("event: ")) {
      const size_t line = event.find('\n');
      Require(line != std::string_view::npos, "a name is followed by data");
      out.name = event.substr(7, line - 7);
      event.remove_prefix(line + 1);
    }
    Require(event.starts_with("data: ") && event.find_first_of("\r\n") == std::string_view::npos,
            "an event has one line of data");
    event.remove_prefix(6);
    out.done = event == "[DONE]";
    if (!out.done) out.data = RequireJson(event, "an event is JSON");
  }
  return events;
}

inline const Json& At(const Json& json, std::string_view key) {
  const Json* value = json.Find(key);
  if (value == nullptr)
    std::fprintf(stderr, "no member %s in %s\n", std::string(key).c_str(), WriteJson(json).c_str());
  Require(value != nullptr, "a member of a reply is there");
  return *value;
}

inline std::string TextAt(const Json& json, std::string_view key) {
  const Json& value = At(json, key);
  Require(value.is_string(), "a member is a string");
  return value.as_string();
}

// Ids and times, wherever they stand.
inline Json WithoutChance(const Json& json) {
  if (json.is_array()) {
    JsonArray out;
    for (const Json& item : json.as_array()) out.push_back(WithoutChance(item));
    return out;
  }
  if (!json.is_object()) return json;
  JsonObject out;
  for (const auto& [key, value] : json.as_object()) {
    if (key != "id" && key != "call_id" && key != "created_at" && key != "completed_at")
      out.Set(key, WithoutChance(value));
  }
  return out;
}

// OpenAI's chat and text completions: one choice, of one object or of chunks.
class CompletionContent {
 public:
  // choice: of a whole reply or of a chunk.
  void Add(const Json& choice) {
    const Json* delta = choice.Find("delta");
    const Json* message = delta != nullptr ? delta : choice.Find("message");
    const Json& said = message != nullptr ? *message : choice;
    Append(said, "content", text_);
    Append(said, "text", text_);
    Append(said, "reasoning_content", reasoning_);
    if (const Json* ids = said.Find("completion_token_ids"); ids != nullptr)
      ids_.insert(ids_.end(), ids->as_array().begin(), ids->as_array().end());
    if (const Json* calls = said.Find("tool_calls"); calls != nullptr && calls->is_array()) {
      for (const Json& call : calls->as_array()) AddCall(call, delta != nullptr);
    }
    const Json* logprobs = choice.Find("logprobs");
    if (logprobs != nullptr && logprobs->is_object()) {
      for (const auto& [name, values] : logprobs->as_object()) {
        if (!values.is_array()) continue;
        Json* old = logprobs_.Find(name);
        JsonArray& all = old != nullptr ? old->as_array() : logprobs_.Set(name, JsonArray{}).as_array();
        all.insert(all.end(), values.as_array().begin(), values.as_array().end());
      }
    }
    if (const Json& reason = At(choice, "finish_reason"); !reason.is_null()) {
      Require(finish_.is_null(), "a choice ends once");
      finish_ = reason;
    }
  }
  Json Get() const {
    Require(finish_.is_string(), "a choice ends");
    return JsonObject{{"text", text_},   {"reasoning", reasoning_}, {"ids", ids_},
                      {"calls", calls_}, {"logprobs", logprobs_},   {"finish", finish_}};
  }

 private:
  static void Append(const Json& said, const char* key, std::string& out) {
    if (const Json* text = said.Find(key); text != nullptr && text->is_string()) out += text->as_string();
  }
  void AddCall(const Json& call, bool streamed) {
    const Json& function = At(call, "function");
    if (function.Find("name") != nullptr) {
      Require(!streamed || At(call, "index").as_int() == std::ssize(calls_), "calls are counted");
      calls_.push_back(JsonObject{{"name", TextAt(function, "name")}, {"arguments", ""}});
    }
    Require(!calls_.empty(), "a call begins with its name");
    calls_.back().as_object().Set("arguments",
                                  TextAt(calls_.back(), "arguments") + TextAt(function, "arguments"));
  }
  std::string text_, reasoning_;
  JsonArray ids_, calls_;
  JsonObject logprobs_;
  Json finish_;
};

inline Json ContentOf(std::vector<CompletionContent>& choices) {
  JsonArray out;
  for (const CompletionContent& choice : choices) out.push_back(choice.Get());
  return out;
}

inline Json CompletionOf(const Json& reply) {
  std::vector<CompletionContent> choices;
  for (const Json& choice : At(reply, "choices").as_array()) {
    Require(At(choice, "index").as_int() == std::ssize(choices), "choices are counted");
    choices.emplace_back().Add(choice);
  }
  return ContentOf(choices);
}

inline Json CompletionOf(const std::vector<SseEvent>& events, int num_choices) {
  std::vector<CompletionContent> choices(static_cast<size_t>(num_choices));
  Require(!events.empty() && events.back().done, "a stream ends with [DONE]");
  for (const SseEvent& event : events) {
    Require(event.name.empty() && event.done == (&event == &events.back()), "only [DONE] ends a stream");
    if (event.done) break;
    for (const Json& choice : At(event.data, "choices").as_array()) {
      const int64_t index = At(choice, "index").as_int();
      Require(index >= 0 && index < num_choices, "the index of a choice");
      choices[static_cast<size_t>(index)].Add(choice);
    }
  }
  return ContentOf(choices);
}

// Anthropic's message.
inline Json MessageOf(const Json& reply) {
  return JsonObject{{"content", WithoutChance(At(reply, "content"))},
                    {"stop_reason", At(reply, "stop_reason")},
                    {"stop_sequence", At(reply, "stop_sequence")},
                    {"usage", At(reply, "usage")}};
}

inline Json MessageOf(const std::vector<SseEvent>& events) {
  JsonArray content;
  bool open = false;
  std::string input;  // of the call that is open
  Json stop_reason, stop_sequence, usage;
  for (size_t i = 0; i < events.size(); ++i) {
    const SseEvent& event = events[i];
    Require(!event.done && TextAt(event.data, "type") == event.name, "an event has its type as its name");
    Require((event.name == "message_start") == (i == 0), "message_start comes first");
    Require((event.name == "message_stop") == (i + 1 == events.size()), "message_stop comes last");
    if (event.name.starts_with("content_block_")) {
      const int64_t index = At(event.data, "index").as_int();
      Require(index == std::ssize(content) - (open ? 1 : 0), "blocks are counted");
    }
    if (event.name == "content_block_start") {
      Require(!std::exchange(open, true), "one block is open");
      content.push_back(At(event.data, "content_block"));
      input.clear();
    } else if (event.name == "content_block_stop") {
      Require(std::exchange(open, false), "a block ends once");
      JsonObject& block = content.back().as_object();
      if (block.Find("input") != nullptr) block.Set("input", RequireJson(input, "a call's input is JSON"));
    } else if (event.name == "content_block_delta") {
      Require(open, "deltas belong to an open block");
      const Json& delta = At(event.data, "delta");
      const std::string type = TextAt(delta, "type");
      if (type == "input_json_delta") {
        input += TextAt(delta, "partial_json");
        continue;
      }
      const std::string member = type.substr(0, type.size() - std::string_view("_delta").size());
      content.back().as_object().Set(member, TextAt(content.back(), member) + TextAt(delta, member));
    } else if (event.name == "message_delta") {
      stop_reason = At(At(event.data, "delta"), "stop_reason");
      stop_sequence = At(At(event.data, "delta"), "stop_sequence");
      usage = At(event.data, "usage");
    }
  }
  Require(!open, "every block ends");
  return JsonObject{{"content", WithoutChance(content)},
                    {"stop_reason", stop_reason},
                    {"stop_sequence", stop_sequence},
                    {"usage", usage}};
}

// OpenAI's response. The last event holds all of it; the deltas before must say the same.
inline Json ResponseOf(const std::vector<SseEvent>& events) {
  Require(events.size() >= 3, "a stream has a beginning and an end");
  std::vector<std::string> texts;
  Json response;
  for (size_t i = 0; i < events.size(); ++i) {
    const SseEvent& event = events[i];
    Require(!event.done && TextAt(event.data, "type") == event.name, "an event has its type as its name");
    Require(At(event.data, "sequence_number").as_int() == static_cast<int64_t>(i), "events are numbered");
    Require((event.name == "response.created") == (i == 0), "response.created comes first");
    if (event.name == "response.output_item.added") {
      Require(At(event.data, "output_index").as_int() == std::ssize(texts), "items are counted");
      texts.emplace_back();
    } else if (event.name.ends_with(".delta")) {
      Require(At(event.data, "output_index").as_int() + 1 == std::ssize(texts), "deltas belong to an item");
      texts.back() += TextAt(event.data, "delta");
    }
    if (i + 1 == events.size()) {
      response = At(event.data, "response");
      Require(event.name == "response." + TextAt(response, "status"), "the last event ends the response");
    }
  }
  const JsonArray& output = At(response, "output").as_array();
  Require(output.size() == texts.size(), "as many items as were begun");
  for (size_t i = 0; i < output.size(); ++i) {
    const bool is_call = output[i].Find("arguments") != nullptr;
    const std::string text =
        is_call ? TextAt(output[i], "arguments") : TextAt(At(output[i], "content").as_array().at(0), "text");
    Require(text == texts[i], "an item is what its deltas say");
  }
  return WithoutChance(response);
}

}  // namespace fd::fuzz
