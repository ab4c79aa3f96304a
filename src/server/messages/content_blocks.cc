#include "server/messages/content_blocks.h"

#include <algorithm>
#include <string_view>

#include "base/strings.h"
#include "server/openai/fields.h"

namespace fd {
namespace {

constexpr std::string_view kMediaTypes[] = {"image/jpeg", "image/png", "image/gif", "image/webp"};

Status Wrong(std::string message) { return InvalidArgument(std::move(message), "messages"); }

// A string member that must be there.
StatusOr<std::string> Text(Json& object, const char* name, const std::string& where) {
  Json* value = object.as_object().Find(name);
  if (value == nullptr || !value->is_string()) {
    return Wrong(StrCat(where, ".", name, " must be a string", value ? StrCat("; got ", Shown(*value)) : ""));
  }
  return std::string(value->as_string());
}

std::string TypeOf(const Json& block) {
  const Json* type = block.Find("type");
  return type != nullptr && type->is_string() ? type->as_string() : std::string();
}

Status UnknownBlock(const Json& block, const std::string& where, std::string_view allowed) {
  if (!block.is_object()) return Wrong(StrCat(where, " must be an object; got ", Shown(block)));
  const Json* type = block.Find("type");
  if (type == nullptr || !type->is_string()) {
    return Wrong(StrCat(where, ".type is missing; allowed are ", allowed));
  }
  return Wrong(StrCat(where, ".type must be one of ", allowed, "; got ", Shown(*type)));
}

// Parts of one chat message, and where its pictures came from.
struct Parts {
  JsonArray parts;
  std::vector<std::pair<size_t, std::string>> pictures;  // index in parts, the client's place
};

void AddText(Parts& out, std::string text) {
  out.parts.push_back(JsonObject{{"type", "text"}, {"text", std::move(text)}});
}

Status AddImage(Json& block, const std::string& block_where, Parts& out) {
  Json* source = block.as_object().Find("source");
  const std::string where = block_where + ".source";
  constexpr const char* kExample =
      "{\"type\": \"base64\", \"media_type\": \"image/png\", \"data\": \"iVBORw0...\"} or {\"type\": "
      "\"url\", \"url\": \"https://...\"}";
  if (source == nullptr || !source->is_object()) return Wrong(StrCat(where, " must be ", kExample));
  const std::string type = TypeOf(*source);
  std::string url;
  if (type == "base64") {
    FD_ASSIGN_OR_RETURN(const std::string media_type, Text(*source, "media_type", where));
    if (std::find(std::begin(kMediaTypes), std::end(kMediaTypes), media_type) == std::end(kMediaTypes)) {
      return Wrong(StrCat(where,
                          ".media_type must be one of image/jpeg, image/png, image/gif, image/webp; got ",
                          Shown(Json(media_type))));
    }
    const Json* data = source->Find("data");
    if (data == nullptr || !data->is_string()) return Wrong(StrCat(where, ".data must be a base64 string"));
    url = StrCat("data:", media_type, ";base64,", data->as_string());
  } else if (type == "url") {
    FD_ASSIGN_OR_RETURN(url, Text(*source, "url", where));
  } else if (type == "file") {
    return Unimplemented(StrCat(where, ": this server keeps no files; send ", kExample), "messages");
  } else {
    return Wrong(StrCat(where, " must be ", kExample));
  }
  out.pictures.emplace_back(out.parts.size(), where);
  out.parts.push_back(JsonObject{{"type", "image_url"}, {"image_url", JsonObject{{"url", std::move(url)}}}});
  return OkStatus();
}

Status AddPart(Json& block, const std::string& where, std::string_view allowed, Parts& out);

// Text as it is, with its title and context before it. Nothing here reads a PDF.
Status AddDocument(Json& block, const std::string& where, Parts& out) {
  JsonObject& object = block.as_object();
  if (const Json* citations = object.Find("citations"); citations != nullptr && citations->is_object()) {
    const Json* enabled = citations->Find("enabled");
    if (enabled != nullptr && enabled->is_bool() && enabled->as_bool()) {
      return Unimplemented(StrCat(where, ".citations: this server makes none; leave it out"), "messages");
    }
  }
  std::string head;
  for (const char* name : {"title", "context"}) {
    const Json* value = object.Find(name);
    if (value == nullptr || value->is_null()) continue;
    if (!value->is_string()) return Wrong(StrCat(where, ".", name, " must be a string; got ", Shown(*value)));
    head += value->as_string() + "\n";
  }
  Json* source = object.Find("source");
  const std::string source_where = where + ".source";
  const std::string type = source != nullptr && source->is_object() ? TypeOf(*source) : "";
  if (type == "text") {
    FD_ASSIGN_OR_RETURN(std::string data, Text(*source, "data", source_where));
    AddText(out, head + data);
    return OkStatus();
  }
  Json* content = type == "content" ? source->as_object().Find("content") : nullptr;
  if (content != nullptr && content->is_string()) {
    AddText(out, head + content->as_string());
    return OkStatus();
  }
  if (content != nullptr && content->is_array()) {
    if (!head.empty()) AddText(out, head);
    for (size_t i = 0; i < content->as_array().size(); ++i) {
      FD_RETURN_IF_ERROR(
          AddPart(content->as_array()[i], StrCat(source_where, ".content[", i, "]"), "text, image", out));
    }
    return OkStatus();
  }
  if (type == "base64" || type == "url" || type == "file") {
    return Unimplemented(
        StrCat(source_where, ": this server reads no PDF files; send their text as a text block, or as ",
               "{\"type\": \"text\", \"media_type\": \"text/plain\", \"data\": \"...\"}"),
        "messages");
  }
  return Wrong(StrCat(source_where,
                      " must be {\"type\": \"text\", \"media_type\": \"text/plain\", \"data\": ",
                      "\"...\"} or {\"type\": \"content\", \"content\": [...]}"));
}

// allowed: the types that may stand here.
Status AddPart(Json& block, const std::string& where, std::string_view allowed, Parts& out) {
  const std::string type = TypeOf(block);
  if (type == "text") {
    FD_ASSIGN_OR_RETURN(std::string text, Text(block, "text", where));
    AddText(out, std::move(text));
    return OkStatus();
  }
  if (type == "image" && allowed.find("image") != std::string_view::npos) return AddImage(block, where, out);
  if (type == "document" && allowed.find("document") != std::string_view::npos) {
    return AddDocument(block, where, out);
  }
  constexpr std::string_view kAnthropicsOwn[] = {"search_result", "server_tool_use", "container_upload",
                                                 "tool_reference", "browser_state"};
  if (std::find(std::begin(kAnthropicsOwn), std::end(kAnthropicsOwn), type) != std::end(kAnthropicsOwn) ||
      (type.ends_with("_tool_result") && block.is_object())) {
    return Unimplemented(
        StrCat(where, ": blocks of type ", type.substr(0, 60), " are not read here; allowed are ", allowed),
        "messages");
  }
  return UnknownBlock(block, where, allowed);
}

// Templates of text models know no parts, and what has no picture needs none.
Json JoinedIfText(Parts& parts) {
  if (!parts.pictures.empty()) return Json(std::move(parts.parts));
  std::string joined;
  for (const Json& part : parts.parts) {
    if (!joined.empty()) joined += '\n';
    joined += part.Find("text")->as_string();
  }
  return Json(std::move(joined));
}

class Translator {
 public:
  explicit Translator(ChatMessages& out) : out_(out) {}

  Status AddSystem(Json& content, const std::string& where) {
    Parts parts;
    FD_RETURN_IF_ERROR(ReadContent(content, where, "text", parts));
    Add(JsonObject{{"role", "system"}}, parts, /*join=*/true);
    return OkStatus();
  }

  Status AddUser(Json& content, const std::string& where) {
    Parts parts;
    if (!content.is_array()) {
      FD_RETURN_IF_ERROR(ReadContent(content, where, "", parts));
      Add(JsonObject{{"role", "user"}}, parts, /*join=*/true);
      return OkStatus();
    }
    const size_t before = out_.messages.size();
    for (size_t i = 0; i < content.as_array().size(); ++i) {
      Json& block = content.as_array()[i];
      const std::string here = StrCat(where, "[", i, "]");
      if (TypeOf(block) != "tool_result") {
        FD_RETURN_IF_ERROR(AddPart(block, here, "text, image, document, tool_result", parts));
        continue;
      }
      if (!parts.parts.empty()) Add(JsonObject{{"role", "user"}}, parts, /*join=*/false);
      FD_RETURN_IF_ERROR(AddToolResult(block, here));
    }
    // A document may be empty; its turn is still one.
    if (!parts.parts.empty() || out_.messages.size() == before)
      Add(JsonObject{{"role", "user"}}, parts, /*join=*/false);
    return OkStatus();
  }

  Status AddAssistant(Json& content, const std::string& where) {
    std::string text, thought;
    JsonArray calls;
    if (content.is_string()) {
      text = content.as_string();
    } else if (!content.is_array()) {
      return Wrong(StrCat(where, " must be a string or an array of blocks; got ", Shown(content)));
    } else {
      for (size_t i = 0; i < content.as_array().size(); ++i) {
        Json& block = content.as_array()[i];
        const std::string here = StrCat(where, "[", i, "]");
        const std::string type = TypeOf(block);
        if (type == "text") {
          FD_ASSIGN_OR_RETURN(const std::string added, Text(block, "text", here));
          text += added;
        } else if (type == "thinking") {
          FD_ASSIGN_OR_RETURN(const std::string added, Text(block, "thinking", here));
          thought += added;
        } else if (type == "redacted_thinking") {
          continue;  // Anthropic's own cipher
        } else if (type == "tool_use") {
          FD_RETURN_IF_ERROR(AddCall(block, here, calls));
        } else {
          Parts none;
          return AddPart(block, here, "text, thinking, redacted_thinking, tool_use", none);
        }
      }
    }
    JsonObject message{{"role", "assistant"}, {"content", std::move(text)}};
    if (!thought.empty()) message.Set("reasoning_content", std::move(thought));
    if (!calls.empty()) message.Set("tool_calls", std::move(calls));
    out_.messages.push_back(std::move(message));
    return OkStatus();
  }

 private:
  Status ReadContent(Json& content, const std::string& where, std::string_view allowed, Parts& parts) {
    if (content.is_string()) {
      AddText(parts, content.as_string());
      return OkStatus();
    }
    if (!content.is_array()) {
      return Wrong(StrCat(where, " must be a string or an array of blocks; got ", Shown(content)));
    }
    for (size_t i = 0; i < content.as_array().size(); ++i) {
      FD_RETURN_IF_ERROR(AddPart(content.as_array()[i], StrCat(where, "[", i, "]"), allowed, parts));
    }
    return OkStatus();
  }

  static Status AddCall(Json& block, const std::string& where, JsonArray& calls) {
    FD_ASSIGN_OR_RETURN(std::string id, Text(block, "id", where));
    FD_ASSIGN_OR_RETURN(std::string name, Text(block, "name", where));
    Json* input = block.as_object().Find("input");
    if (input == nullptr || !input->is_object()) {
      return Wrong(StrCat(where, ".input must be an object", input ? StrCat("; got ", Shown(*input)) : ""));
    }
    calls.push_back(
        JsonObject{{"id", std::move(id)},
                   {"type", "function"},
                   {"function", JsonObject{{"name", std::move(name)}, {"arguments", std::move(*input)}}}});
    return OkStatus();
  }

  Status AddToolResult(Json& block, const std::string& where) {
    FD_ASSIGN_OR_RETURN(std::string id, Text(block, "tool_use_id", where));
    JsonObject& object = block.as_object();
    const Json* is_error = object.Find("is_error");
    if (is_error != nullptr && !is_error->is_null() && !is_error->is_bool()) {
      return Wrong(StrCat(where, ".is_error must be true or false; got ", Shown(*is_error)));
    }
    Parts parts;
    // Templates know no failed calls, so the text says it.
    if (is_error != nullptr && is_error->is_bool() && is_error->as_bool()) AddText(parts, "Error:");
    if (Json* content = object.Find("content"); content != nullptr && !content->is_null()) {
      FD_RETURN_IF_ERROR(ReadContent(*content, where + ".content", "text, image, document", parts));
    }
    Add(JsonObject{{"role", "tool"}, {"tool_call_id", std::move(id)}}, parts, /*join=*/true);
    return OkStatus();
  }

  // join: as one string where that is possible. Leaves parts empty.
  void Add(JsonObject message, Parts& parts, bool join) {
    for (const auto& [index, place] : parts.pictures) {
      out_.places.emplace_back(StrCat("messages[", out_.messages.size(), "].content[", index, "].image_url"),
                               place);
    }
    Json content = join ? JoinedIfText(parts) : Json(std::move(parts.parts));
    message.Set("content", std::move(content));
    out_.messages.push_back(std::move(message));
    parts = {};
  }

  ChatMessages& out_;
};

}  // namespace

StatusOr<ChatMessages> ToChatMessages(const Json& system, JsonArray& messages) {
  ChatMessages out;
  Translator translator(out);
  if (!system.is_null()) {
    Json copy = system;
    if (Status s = translator.AddSystem(copy, "system"); !s.ok()) {
      return Status(s.code(), s.message(), "system");
    }
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = StrCat("messages[", i, "]");
    Json& message = messages[i];
    if (!message.is_object()) {
      return Wrong(StrCat(where,
                          " must be an object such as {\"role\": \"user\", \"content\": \"Hello\"}; got ",
                          Shown(message)));
    }
    JsonObject& object = message.as_object();
    const Json* role = object.Find("role");
    const std::string name = role != nullptr && role->is_string() ? role->as_string() : "";
    Json* content = object.Find("content");
    if (name != "user" && name != "assistant" && name != "system") {
      return Wrong(
          StrCat(where, ".role must be user or assistant", role ? StrCat("; got ", Shown(*role)) : ""));
    }
    const std::string content_where = where + ".content";
    if (content == nullptr || content->is_null()) {
      return Wrong(StrCat(content_where, " is missing; it must be a string or an array of blocks"));
    }
    if (content->is_array() && content->as_array().empty()) {
      return Wrong(StrCat(content_where, " is an empty array"));
    }
    FD_RETURN_IF_ERROR(name == "user"        ? translator.AddUser(*content, content_where)
                       : name == "assistant" ? translator.AddAssistant(*content, content_where)
                                             : translator.AddSystem(*content, content_where));
  }
  return out;
}

}  // namespace fd
