#include "server/text/tokenizer_config.h"

#include <charconv>

#include "base/files.h"
#include "base/strings.h"
#include "base/utf8.h"

namespace fd {
namespace {

Status CheckId(int64_t id, const std::string& where) {
  if (id >= 0 && id < kMaxTokenId) return OkStatus();
  return InvalidArgument(StrCat(where, ": token id ", id, " is outside [0, ", kMaxTokenId, ")"));
}

StatusOr<bool> Flag(const Json& entry, std::string_view name, const std::string& where) {
  const Json* value = entry.Find(name);
  if (value == nullptr || value->is_null()) return false;
  if (!value->is_bool())
    return InvalidArgument(StrCat(where, ".", name, ": expected a boolean, got ", value->TypeName()));
  return value->as_bool();
}

// A special token is named by a string or by an object with "content".
StatusOr<std::string> TokenString(const Json& value, const std::string& where) {
  if (value.is_null()) return std::string();
  if (value.is_string()) return value.as_string();
  const Json* content = value.Find("content");
  if (content != nullptr && content->is_string()) return content->as_string();
  return InvalidArgument(
      StrCat(where, ": expected a string or an object with \"content\", got ", value.TypeName()));
}

// *_token members and additional_special_tokens of tokenizer_config.json or special_tokens_map.json.
Status ReadSpecialStrings(const Json& json, const std::string& file, TokenizerConfig& config) {
  struct Named {
    const char* key;
    std::string* target;
  };
  std::string cls, sep, mask;
  const Named named[] = {{"bos_token", &config.bos_token},
                         {"eos_token", &config.eos_token},
                         {"pad_token", &config.pad_token},
                         {"unk_token", &config.unk_token},
                         {"cls_token", &cls},
                         {"sep_token", &sep},
                         {"mask_token", &mask}};
  for (const Named& n : named) {
    const Json* value = json.Find(n.key);
    if (value == nullptr) continue;
    FD_ASSIGN_OR_RETURN(std::string content, TokenString(*value, StrCat(file, ": ", n.key)));
    if (content.empty()) continue;
    config.special_strings.push_back(content);
    if (n.target->empty()) *n.target = std::move(content);
  }
  const Json* more = json.Find("additional_special_tokens");
  if (more == nullptr || more->is_null()) return OkStatus();
  if (!more->is_array()) {
    return InvalidArgument(
        StrCat(file, ": additional_special_tokens: expected an array, got ", more->TypeName()));
  }
  for (const Json& value : more->as_array()) {
    FD_ASSIGN_OR_RETURN(std::string content, TokenString(value, StrCat(file, ": additional_special_tokens")));
    config.special_strings.push_back(std::move(content));
  }
  return OkStatus();
}

Status OptionalFlag(const Json& json, std::string_view name, const std::string& file,
                    std::optional<bool>& out) {
  const Json* value = json.Find(name);
  if (value == nullptr || value->is_null()) return OkStatus();
  FD_ASSIGN_OR_RETURN(bool flag, Flag(json, name, file));
  out = flag;
  return OkStatus();
}

Status ReadMainConfig(const Json& json, const std::string& file, TokenizerConfig& config) {
  FD_RETURN_IF_ERROR(ReadSpecialStrings(json, file, config));
  FD_RETURN_IF_ERROR(OptionalFlag(json, "add_bos_token", file, config.add_bos_token));
  FD_RETURN_IF_ERROR(OptionalFlag(json, "add_eos_token", file, config.add_eos_token));
  FD_RETURN_IF_ERROR(OptionalFlag(json, "add_prefix_space", file, config.add_prefix_space));
  const Json* name = json.Find("tokenizer_class");
  if (name != nullptr && name->is_string()) config.tokenizer_class = name->as_string();
  const Json* table = json.Find("added_tokens_decoder");
  if (table == nullptr || table->is_null()) return OkStatus();
  if (!table->is_object()) {
    return InvalidArgument(
        StrCat(file, ": added_tokens_decoder: expected an object, got ", table->TypeName()));
  }
  for (const auto& [key, entry] : table->as_object()) {
    const std::string where = StrCat(file, ": added_tokens_decoder[\"", key, "\"]");
    int64_t id = -1;
    auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      return InvalidArgument(StrCat(where, ": the key must be a token id, for example \"100295\""));
    }
    FD_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(entry, id, where));
    config.added.push_back(std::move(token));
  }
  return OkStatus();
}

Status ReadAddedTokens(const Json& json, const std::string& file, TokenizerConfig& config) {
  for (const auto& [content, id] : json.as_object()) {
    const std::string where = StrCat(file, ": \"", content, "\"");
    if (!id.is_int()) return InvalidArgument(StrCat(where, ": expected a token id, got ", id.TypeName()));
    FD_RETURN_IF_ERROR(CheckId(id.as_int(), where));
    AddedToken token;
    token.content = content;
    token.id = static_cast<int32_t>(id.as_int());
    config.added.push_back(std::move(token));
  }
  return OkStatus();
}

}  // namespace

StatusOr<AddedToken> ParseAddedToken(const Json& entry, int64_t id, const std::string& where) {
  FD_RETURN_IF_ERROR(CheckId(id, where));
  const Json* content = entry.Find("content");
  if (content == nullptr || !content->is_string() || content->as_string().empty()) {
    return InvalidArgument(StrCat(where, ".content: expected a string that is not empty"));
  }
  AddedToken token;
  token.content = content->as_string();
  token.id = static_cast<int32_t>(id);
  FD_ASSIGN_OR_RETURN(token.special, Flag(entry, "special", where));
  FD_ASSIGN_OR_RETURN(token.lstrip, Flag(entry, "lstrip", where));
  FD_ASSIGN_OR_RETURN(token.rstrip, Flag(entry, "rstrip", where));
  // "normalized" is read as false: a string is looked for as it is written.
  FD_ASSIGN_OR_RETURN(bool single_word, Flag(entry, "single_word", where));
  if (single_word) return Unimplemented(StrCat(where, ".single_word: true is not supported"));
  return token;
}

StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& model_dir) {
  TokenizerConfig config;
  using Reader = Status (*)(const Json&, const std::string&, TokenizerConfig&);
  const std::pair<const char*, Reader> files[] = {{"tokenizer_config.json", ReadMainConfig},
                                                  {"special_tokens_map.json", ReadSpecialStrings},
                                                  {"added_tokens.json", ReadAddedTokens}};
  for (const auto& [name, reader] : files) {
    const std::string path = JoinPath(model_dir, name);
    if (!FileExists(path)) continue;
    FD_ASSIGN_OR_RETURN(Json json, ReadJsonFile(path));
    if (!json.is_object())
      return InvalidArgument(StrCat(path, ": expected an object, got ", json.TypeName()));
    FD_RETURN_IF_ERROR(reader(json, path, config));
  }
  return config;
}

}  // namespace fd
