#include "server/responses/input_items.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <set>
#include <string_view>
#include <utility>

#include "base/strings.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr int64_t kMaxIdBytes = 512;

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> allowed) {
  return std::find(allowed.begin(), allowed.end(), value) != allowed.end();
}

Status Wrong(std::string message) { return InvalidArgument(std::move(message), "input"); }
Status CannotYet(std::string message) { return Unimplemented(std::move(message), "input"); }

// A member that must be a string.
StatusOr<std::string> Text(const JsonObject& object, const char* name, const std::string& where) {
  const Json* value = object.Find(name);
  if (value == nullptr || value->is_null()) return Wrong(StrCat(where, ".", name, " is missing"));
  if (!value->is_string()) return Wrong(StrCat(where, ".", name, " must be a string; got ", Shown(*value)));
  return value->as_string();
}

StatusOr<std::string> Id(const JsonObject& item, const char* name, const std::string& where) {
  FD_ASSIGN_OR_RETURN(std::string id, Text(item, name, where));
  if (id.empty() || static_cast<int64_t>(id.size()) > kMaxIdBytes) {
    return Wrong(StrCat(where, ".", name, " must have 1 to ", kMaxIdBytes, " bytes; it has ", id.size()));
  }
  return id;
}

StatusOr<std::string> TypeOfPart(const Json& part, const std::string& where) {
  if (!part.is_object()) return Wrong(StrCat(where, " must be an object; got ", Shown(part)));
  return Text(part.as_object(), "type", where);
}

// A part of what the user, the system or a tool said, as chats have it.
StatusOr<Json> ReadPart(Json& part, const std::string& where) {
  FD_ASSIGN_OR_RETURN(const std::string type, TypeOfPart(part, where));
  JsonObject& object = part.as_object();
  if (IsOneOf(type, {"input_text", "output_text", "text"})) {
    FD_ASSIGN_OR_RETURN(std::string text, Text(object, "text", where));
    return Json(JsonObject{{"type", "text"}, {"text", std::move(text)}});
  }
  if (IsOneOf(type, {"input_image", "image_url", "image"})) {
    if (const Json* file = object.Find("file_id"); file != nullptr && !file->is_null()) {
      return CannotYet(StrCat(where,
                              ".file_id: no files are stored on this server; send image_url, a URL or "
                              "data:image/png;base64,..."));
    }
    object.Erase("file_id");
    // All there is to see is "high" here.
    const auto read_detail = [](JsonObject& holder) {
      Json* detail = holder.Find("detail");
      if (detail != nullptr && detail->is_string() && detail->as_string() == "original") *detail = "high";
    };
    read_detail(object);
    if (Json* url = object.Find("image_url"); url != nullptr && url->is_object())
      read_detail(url->as_object());
    return std::move(part);
  }
  if (IsOneOf(type, {"input_video", "video_url", "video"})) return std::move(part);
  if (IsOneOf(type, {"input_file", "input_audio"})) {
    return CannotYet(
        StrCat(where, ": ", type, " is not taken by this server; send input_text or input_image"));
  }
  return Wrong(StrCat(where, ".type must be input_text or input_image; got ", Shown(*object.Find("type"))));
}

// A text, or parts of it, which are moved from.
StatusOr<Json> ReadContent(Json* content, const std::string& where) {
  if (content == nullptr || content->is_null()) {
    return Wrong(StrCat(where, " is missing; it must be a string or an array of parts"));
  }
  if (content->is_string()) return std::move(*content);
  if (!content->is_array()) {
    return Wrong(StrCat(where, " must be a string or an array of parts; got ", Shown(*content)));
  }
  JsonArray parts;
  for (size_t i = 0; i < content->as_array().size(); ++i) {
    FD_ASSIGN_OR_RETURN(Json part, ReadPart(content->as_array()[i], StrCat(where, "[", i, "]")));
    parts.push_back(std::move(part));
  }
  return Json(std::move(parts));
}

// What the model said, as one text.
StatusOr<std::string> ReadAnswer(const Json* content, const std::string& where) {
  if (content == nullptr || content->is_null()) {
    return Wrong(StrCat(where, " is missing; it must be a string or an array of output_text parts"));
  }
  if (content->is_string()) return content->as_string();
  if (!content->is_array()) {
    return Wrong(StrCat(where, " must be a string or an array of output_text parts; got ", Shown(*content)));
  }
  std::string answer;
  for (size_t i = 0; i < content->as_array().size(); ++i) {
    const Json& part = content->as_array()[i];
    const std::string here = StrCat(where, "[", i, "]");
    FD_ASSIGN_OR_RETURN(const std::string type, TypeOfPart(part, here));
    const bool refusal = type == "refusal";
    if (!refusal && !IsOneOf(type, {"output_text", "input_text", "text"})) {
      return Wrong(StrCat(here, ".type must be output_text or refusal; got ", Shown(*part.Find("type"))));
    }
    FD_ASSIGN_OR_RETURN(const std::string text, Text(part.as_object(), refusal ? "refusal" : "text", here));
    answer += text;
  }
  return answer;
}

StatusOr<Json> ReadArguments(const JsonObject& item, const std::string& where) {
  FD_ASSIGN_OR_RETURN(const std::string text, Text(item, "arguments", where));
  if (text.empty()) return Json(JsonObject{});
  StatusOr<Json> parsed = ParseJson(text);
  if (!parsed.ok()) return Wrong(StrCat(where, ".arguments is no JSON: ", parsed.status().message()));
  return parsed;
}

// The items so far. A turn of the model is open while its next item may still belong to it.
class Conversation {
 public:
  ChatInput Take() {
    EndTurn();
    return std::move(input_);
  }

  void Add(Place place, JsonObject message) {
    EndTurn();
    thought_.clear();  // of a turn that never came
    Append(std::move(place), std::move(message));
  }

  Status AddItem(Json& item, const std::string& where) {
    if (!item.is_object()) {
      return Wrong(StrCat(where,
                          " must be an object such as {\"role\": \"user\", \"content\": \"Hello\"}; got ",
                          Shown(item)));
    }
    JsonObject& object = item.as_object();
    const Json* given = object.Find("type");
    if (given != nullptr && !given->is_null() && !given->is_string()) {
      return Wrong(StrCat(where, ".type must be a string; got ", Shown(*given)));
    }
    std::string type = given != nullptr && given->is_string() ? given->as_string() : "";
    // Both are OpenAI's ways to leave the type out.
    if (type.empty())
      type = object.Find("role") == nullptr && object.Find("id") ? "item_reference" : "message";
    if (type == "message") return AddMessage(object, where);
    if (type == "function_call") return AddCall(object, where);
    if (type == "function_call_output") return AddOutput(object, where);
    if (type == "reasoning") return AddThought(object, where);
    constexpr const char* kKnown = "message, function_call, function_call_output and reasoning";
    if (type == "item_reference") {
      return CannotYet(StrCat(
          where, ": item_reference: nothing is stored on this server; send the item itself (", kKnown, ")"));
    }
    return CannotYet(
        StrCat(where, ".type: this server knows items of type ", kKnown, "; got ", Shown(Json(type))));
  }

 private:
  void Append(Place place, JsonObject message) {
    input_.messages.emplace_back(std::move(message));
    input_.places.push_back(std::move(place));
  }

  // The message of the open turn, or of a new one that begins with this item.
  JsonObject& Turn(const std::string& where) {
    if (!turn_open_) {
      JsonObject message{{"role", "assistant"}, {"content", ""}};
      if (!thought_.empty()) message.Set("reasoning_content", Json(std::exchange(thought_, {})));
      Append({where, where + ".content"}, std::move(message));
      turn_open_ = true;
    }
    return input_.messages.back().as_object();
  }

  void EndTurn() {
    if (turn_open_) Turn({}).Set("content", Json(std::exchange(answer_, {})));
    turn_open_ = turn_has_calls_ = false;
  }

  Status AddMessage(JsonObject& item, const std::string& where) {
    FD_ASSIGN_OR_RETURN(const std::string role, Text(item, "role", where));
    if (role == "assistant") {
      FD_ASSIGN_OR_RETURN(const std::string text, ReadAnswer(item.Find("content"), where + ".content"));
      // Text after text is a turn of its own; text after a call is not, or the call would have no result.
      if (!turn_has_calls_) EndTurn();
      Turn(where);
      answer_ += text;
      return OkStatus();
    }
    if (!IsOneOf(role, {"user", "system", "developer"})) {
      return Wrong(
          StrCat(where, ".role must be one of user, assistant, system, developer; got ", Shown(Json(role))));
    }
    FD_ASSIGN_OR_RETURN(Json content, ReadContent(item.Find("content"), where + ".content"));
    Add({where, where + ".content"}, {{"role", role}, {"content", std::move(content)}});
    return OkStatus();
  }

  Status AddCall(const JsonObject& item, const std::string& where) {
    FD_ASSIGN_OR_RETURN(std::string id, Id(item, "call_id", where));
    FD_ASSIGN_OR_RETURN(std::string name, Id(item, "name", where));
    FD_ASSIGN_OR_RETURN(Json arguments, ReadArguments(item, where));
    JsonObject& turn = Turn(where);
    if (!turn_has_calls_) turn.Set("tool_calls", JsonArray{});
    turn_has_calls_ = true;
    call_ids_.insert(id);
    turn.Find("tool_calls")
        ->as_array()
        .push_back(JsonObject{
            {"id", std::move(id)},
            {"type", "function"},
            {"function", JsonObject{{"name", std::move(name)}, {"arguments", std::move(arguments)}}}});
    return OkStatus();
  }

  Status AddOutput(JsonObject& item, const std::string& where) {
    FD_ASSIGN_OR_RETURN(std::string id, Id(item, "call_id", where));
    if (!call_ids_.contains(id)) {
      return Wrong(StrCat(where, ".call_id: no function_call before it has the call_id ", Shown(Json(id)),
                          "; nothing is stored on this server, so the call must stand in input, too"));
    }
    FD_ASSIGN_OR_RETURN(Json output, ReadContent(item.Find("output"), where + ".output"));
    Add({where, where + ".output"},
        {{"role", "tool"}, {"tool_call_id", std::move(id)}, {"content", std::move(output)}});
    return OkStatus();
  }

  // Its content is the thought. A summary is not what the model thought, and encrypted_content is another
  // server's.
  Status AddThought(const JsonObject& item, const std::string& where) {
    EndTurn();
    thought_.clear();
    const Json* content = item.Find("content");
    if (content == nullptr || content->is_null()) return OkStatus();
    if (!content->is_array()) {
      return Wrong(StrCat(where, ".content must be an array of reasoning_text parts; got ", Shown(*content)));
    }
    for (size_t i = 0; i < content->as_array().size(); ++i) {
      const std::string here = StrCat(where, ".content[", i, "]");
      FD_ASSIGN_OR_RETURN(const std::string type, TypeOfPart(content->as_array()[i], here));
      FD_ASSIGN_OR_RETURN(const std::string text, Text(content->as_array()[i].as_object(), "text", here));
      if (!IsOneOf(type, {"reasoning_text", "text"})) {
        return Wrong(StrCat(here, ".type must be reasoning_text; got ", Shown(Json(type))));
      }
      thought_ += text;
    }
    return OkStatus();
  }

  ChatInput input_;
  std::string thought_;  // of the turn that comes next
  std::string answer_;   // of the open turn
  bool turn_open_ = false;
  bool turn_has_calls_ = false;
  std::set<std::string> call_ids_;
};

}  // namespace

StatusOr<ChatInput> ReadInput(const Service& service, Json* input, const std::string& instructions) {
  if (input == nullptr || input->is_null()) {
    return Wrong("input is missing; example: {\"input\": \"Hello\"}");
  }
  Conversation conversation;
  if (!instructions.empty()) {
    conversation.Add({"instructions", "instructions"}, {{"role", "system"}, {"content", instructions}});
  }
  if (input->is_string()) {
    conversation.Add({"input", "input"}, {{"role", "user"}, {"content", std::move(*input)}});
    return conversation.Take();
  }
  if (!input->is_array()) return BadField("input", "a string or an array of items", *input);
  JsonArray& items = input->as_array();
  if (items.empty()) return Wrong("input is an empty array");
  if (static_cast<int64_t>(items.size()) > service.limits.max_messages) {
    return Wrong(StrCat("input has ", items.size(), " items; at most ", service.limits.max_messages,
                        " are allowed (--max-messages)"));
  }
  for (size_t i = 0; i < items.size(); ++i) {
    FD_RETURN_IF_ERROR(conversation.AddItem(items[i], StrCat("input[", i, "]")));
  }
  ChatInput read = conversation.Take();
  if (read.messages.empty()) return Wrong("input holds thoughts only; it needs a message");
  return read;
}

Status InInputTerms(const std::vector<Place>& places, const Status& status) {
  constexpr std::string_view kMessages = "messages";
  constexpr std::string_view kContent = ".content";
  const std::string& text = status.message();
  std::string out;
  size_t done = 0;
  for (size_t at; (at = text.find(kMessages, done)) != std::string::npos;) {
    out.append(text, done, at - done);
    done = at + kMessages.size();
    // In quotes it is what the client wrote.
    if (at > 0 && text[at - 1] != ' ') {
      out += kMessages;
      continue;
    }
    size_t index = 0;
    const char* const end = text.data() + text.size();
    const bool indexed = done < text.size() && text[done] == '[';
    const auto [rest, error] = std::from_chars(text.data() + done + (indexed ? 1 : 0), end, index);
    if (!indexed || error != std::errc() || rest == end || *rest != ']' || index >= places.size()) {
      constexpr std::string_view kHold = " hold ";
      out += "input";
      if (text.compare(done, kHold.size(), kHold) == 0) {  // one noun, not several
        out += " holds ";
        done += kHold.size();
      }
      continue;
    }
    done = static_cast<size_t>(rest + 1 - text.data());
    if (text.compare(done, kContent.size(), kContent) == 0) {
      done += kContent.size();
      out += places[index].content;
    } else {
      out += places[index].item;
    }
  }
  out.append(text, done);
  return Status(status.code(), std::move(out), status.param() == kMessages ? "input" : status.param());
}

}  // namespace fd
