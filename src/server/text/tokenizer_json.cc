#include "server/text/tokenizer_json.h"

#include <set>

#include "base/strings.h"
#include "server/text/json_scanner.h"

namespace fd {
namespace {

Status NotSupported(const std::string& where, const std::string& what) {
  return Unimplemented(StrCat(where, ": ", what, " is not supported"));
}

StatusOr<std::string> TypeOf(const Json& json, const std::string& where) {
  const Json* type = json.Find("type");
  if (type == nullptr || !type->is_string())
    return InvalidArgument(StrCat(where, ".type: expected a string"));
  return type->as_string();
}

StatusOr<std::string> StringMember(const Json& json, const char* name, const std::string& where) {
  const Json* value = json.Find(name);
  if (value == nullptr || !value->is_string())
    return InvalidArgument(StrCat(where, ".", name, ": expected a string"));
  return value->as_string();
}

StatusOr<bool> BoolMember(const Json& json, const char* name, bool absent, const std::string& where) {
  const Json* value = json.Find(name);
  if (value == nullptr || value->is_null()) return absent;
  if (!value->is_bool()) return InvalidArgument(StrCat(where, ".", name, ": expected a boolean"));
  return value->as_bool();
}

// Calls visit(component, where) for each member of a Sequence, or for the component itself.
template <typename Visit>
Status VisitSequence(const Json& json, const char* list, const std::string& where, int depth,
                     const Visit& visit) {
  if (json.is_null()) return OkStatus();
  if (depth > 8) return InvalidArgument(StrCat(where, ": Sequence within Sequence, more than 8 deep"));
  FD_ASSIGN_OR_RETURN(const std::string type, TypeOf(json, where));
  if (type != "Sequence") return visit(json, type, where);
  const Json* members = json.Find(list);
  if (members == nullptr || !members->is_array())
    return InvalidArgument(StrCat(where, ".", list, ": expected an array"));
  for (size_t i = 0; i < members->as_array().size(); ++i) {
    FD_RETURN_IF_ERROR(
        VisitSequence(members->as_array()[i], list, StrCat(where, ".", list, "[", i, "]"), depth + 1, visit));
  }
  return OkStatus();
}

// {"pattern": {"String": ...}} of a Replace.
StatusOr<std::string> LiteralPattern(const Json& json, const std::string& where) {
  const Json* pattern = json.Find("pattern");
  const Json* literal = pattern == nullptr ? nullptr : pattern->Find("String");
  if (literal != nullptr && literal->is_string() && !literal->as_string().empty())
    return literal->as_string();
  if (pattern != nullptr && pattern->Find("Regex") != nullptr)
    return NotSupported(where, "Replace with a Regex");
  return InvalidArgument(StrCat(where, ".pattern: expected {\"String\": \" \"}"));
}

Status ParseNormalizer(const Json& json, TokenizerJson& out) {
  return VisitSequence(json, "normalizers", "normalizer", 0,
                       [&](const Json& step, const std::string& type, const std::string& where) -> Status {
                         using Step = TokenizerJson::NormalizeStep;
                         if (type == "NFC") {
                           out.normalizer.push_back({Step::kNfc, "", ""});
                         } else if (type == "Prepend") {
                           FD_ASSIGN_OR_RETURN(std::string prepend, StringMember(step, "prepend", where));
                           out.normalizer.push_back({Step::kPrepend, "", std::move(prepend)});
                         } else if (type == "Replace") {
                           FD_ASSIGN_OR_RETURN(std::string from, LiteralPattern(step, where));
                           FD_ASSIGN_OR_RETURN(std::string content, StringMember(step, "content", where));
                           out.normalizer.push_back({Step::kReplace, std::move(from), std::move(content)});
                         } else {
                           return NotSupported(where, type);
                         }
                         return OkStatus();
                       });
}

// The pattern that ByteLevel uses when it is to split by itself.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

std::string QuoteLiteral(std::string_view literal) {
  std::string out;
  for (char c : literal) {
    const bool plain = static_cast<uint8_t>(c) >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                       (c >= 'A' && c <= 'Z');
    if (!plain) out += '\\';
    out += c;
  }
  return out;
}

Status AddSplit(const std::string& pattern, const std::string& where, TokenizerJson& out) {
  StatusOr<SplitPattern> split = SplitPattern::Compile(pattern);
  if (!split.ok()) return split.status().WithContext(where);
  out.splits.push_back(std::move(split).value());
  return OkStatus();
}

Status ParseSplit(const Json& step, const std::string& where, TokenizerJson& out) {
  FD_ASSIGN_OR_RETURN(const std::string behavior, StringMember(step, "behavior", where));
  FD_ASSIGN_OR_RETURN(const bool invert, BoolMember(step, "invert", false, where));
  if (behavior != "Isolated") return NotSupported(where, StrCat("Split with behavior ", behavior));
  if (invert) return NotSupported(where, "Split with invert");
  const Json* pattern = step.Find("pattern");
  const Json* regex = pattern == nullptr ? nullptr : pattern->Find("Regex");
  if (regex != nullptr && regex->is_string()) return AddSplit(regex->as_string(), where, out);
  FD_ASSIGN_OR_RETURN(const std::string literal, LiteralPattern(step, where));
  return AddSplit(QuoteLiteral(literal), where, out);
}

Status ParsePreTokenizer(const Json& json, TokenizerJson& out) {
  return VisitSequence(
      json, "pretokenizers", "pre_tokenizer", 0,
      [&](const Json& step, const std::string& type, const std::string& where) -> Status {
        if (out.byte_level) return NotSupported(where, StrCat(type, " after ByteLevel"));
        if (type == "Split") return ParseSplit(step, where, out);
        if (type == "Digits") {
          FD_ASSIGN_OR_RETURN(const bool single, BoolMember(step, "individual_digits", false, where));
          return AddSplit(single ? "\\p{N}" : "\\p{N}+", where, out);
        }
        if (type != "ByteLevel") return NotSupported(where, type);
        FD_ASSIGN_OR_RETURN(const bool prefix, BoolMember(step, "add_prefix_space", true, where));
        if (prefix) return NotSupported(where, "ByteLevel with add_prefix_space");
        FD_ASSIGN_OR_RETURN(const bool use_regex, BoolMember(step, "use_regex", true, where));
        if (use_regex) FD_RETURN_IF_ERROR(AddSplit(kGpt2Pattern, where, out));
        out.byte_level = true;
        return OkStatus();
      });
}

// The ids of a special token that a template names.
Status TemplateIds(const Json& json, const Json& name, const std::string& where, std::vector<int32_t>& ids) {
  const Json* table = json.Find("special_tokens");
  const Json* entry = table == nullptr || !name.is_string() ? nullptr : table->Find(name.as_string());
  const Json* list = entry == nullptr ? nullptr : entry->Find("ids");
  if (list == nullptr || !list->is_array()) {
    return InvalidArgument(StrCat(where, ".special_tokens: the template names a token that is not there"));
  }
  for (const Json& id : list->as_array()) {
    if (!id.is_int() || id.as_int() < 0 || id.as_int() >= kMaxTokenId) {
      return InvalidArgument(
          StrCat(where, ".special_tokens: ids must be integers in [0, ", kMaxTokenId, ")"));
    }
    ids.push_back(static_cast<int32_t>(id.as_int()));
  }
  return OkStatus();
}

Status ParsePostProcessor(const Json& json, TokenizerJson& out) {
  return VisitSequence(
      json, "processors", "post_processor", 0,
      [&](const Json& step, const std::string& type, const std::string& where) -> Status {
        if (type == "ByteLevel") return OkStatus();  // changes offsets only
        if (type != "TemplateProcessing") return NotSupported(where, type);
        const Json* single = step.Find("single");
        if (single == nullptr || !single->is_array()) {
          return InvalidArgument(StrCat(where, ".single: expected an array"));
        }
        std::vector<int32_t> before, after;
        bool seen_text = false;
        for (const Json& item : single->as_array()) {
          if (const Json* special = item.Find("SpecialToken"); special != nullptr) {
            const Json* name = special->Find("id");
            if (name == nullptr) return InvalidArgument(StrCat(where, ".single: a SpecialToken without id"));
            FD_RETURN_IF_ERROR(TemplateIds(step, *name, where, seen_text ? after : before));
          } else if (item.Find("Sequence") != nullptr && !seen_text) {
            seen_text = true;
          } else {
            return InvalidArgument(StrCat(where, ".single: expected SpecialToken and one Sequence"));
          }
        }
        if (!seen_text) return InvalidArgument(StrCat(where, ".single: there is no Sequence"));
        out.prefix_ids.insert(out.prefix_ids.begin(), before.begin(), before.end());
        out.suffix_ids.insert(out.suffix_ids.end(), after.begin(), after.end());
        return OkStatus();
      });
}

Status ParseDecoder(const Json& json, TokenizerJson& out) {
  bool byte_level = false;
  bool fused = false;
  FD_RETURN_IF_ERROR(
      VisitSequence(json, "decoders", "decoder", 0,
                    [&](const Json& step, const std::string& type, const std::string& where) -> Status {
                      if (type == "ByteLevel") {
                        byte_level = true;
                      } else if (type == "Replace") {
                        if (!out.replace_from.empty()) return NotSupported(where, "a second Replace");
                        FD_ASSIGN_OR_RETURN(out.replace_from, LiteralPattern(step, where));
                        FD_ASSIGN_OR_RETURN(out.replace_to, StringMember(step, "content", where));
                      } else if (type == "ByteFallback") {
                        out.decodes_bytes = true;
                      } else if (type == "Fuse") {
                        fused = true;
                      } else if (type == "Strip") {
                        FD_ASSIGN_OR_RETURN(const std::string content, StringMember(step, "content", where));
                        const Json* start = step.Find("start");
                        const Json* stop = step.Find("stop");
                        if (!fused || content != " " || start == nullptr || !(*start == Json(1)) ||
                            stop == nullptr || !(*stop == Json(0))) {
                          return NotSupported(where, "Strip other than one leading space after Fuse");
                        }
                        out.strips_leading_space = true;
                      } else {
                        return NotSupported(where, type);
                      }
                      return OkStatus();
                    }));
  if (byte_level != out.byte_level) {
    return NotSupported("decoder", "ByteLevel in only one of pre_tokenizer and decoder");
  }
  if (!byte_level && !fused) return NotSupported("decoder", "a decoder without ByteLevel or Fuse");
  return OkStatus();
}

Status ParseAdded(const Json& json, TokenizerJson& out) {
  if (json.is_null()) return OkStatus();
  if (!json.is_array()) return InvalidArgument("added_tokens: expected an array");
  for (size_t i = 0; i < json.as_array().size(); ++i) {
    const Json& entry = json.as_array()[i];
    const std::string where = StrCat("added_tokens[", i, "]");
    const Json* id = entry.Find("id");
    if (id == nullptr || !id->is_int()) return InvalidArgument(StrCat(where, ".id: expected an integer"));
    FD_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(entry, id->as_int(), where));
    out.added.push_back(std::move(token));
  }
  return OkStatus();
}

Status ParseModelMember(const std::string& name, const Json& json, TokenizerJson& out) {
  const std::string where = "model." + name;
  if (name == "type") {
    if (json.is_string() && json.as_string() == "BPE") return OkStatus();
    return NotSupported(where, json.is_string() ? json.as_string() : json.TypeName());
  }
  if (json.is_null()) return OkStatus();
  if (name == "unk_token") {
    if (!json.is_string()) return InvalidArgument(where + ": expected a string");
    out.unk_token = json.as_string();
  } else if (name == "continuing_subword_prefix" || name == "end_of_word_suffix") {
    if (!json.is_string() || !json.as_string().empty()) return NotSupported("model", name);
  } else if (name == "dropout") {
    if (!json.is_number() || json.as_double() != 0) return NotSupported("model", name);
  } else if (name == "fuse_unk" || name == "byte_fallback" || name == "ignore_merges") {
    if (!json.is_bool()) return InvalidArgument(where + ": expected a boolean");
    (name == "fuse_unk"        ? out.fuse_unk
     : name == "byte_fallback" ? out.byte_fallback
                               : out.ignore_merges) = json.as_bool();
  } else {
    return NotSupported("model", name);
  }
  return OkStatus();
}

// Calls visit(key, raw value, offset of the value) for each member of the object that the scanner stands
// before.
template <typename Visit>
Status VisitMembers(JsonScanner& scanner, const Visit& visit) {
  FD_RETURN_IF_ERROR(scanner.Expect('{'));
  std::set<std::string> seen;
  for (bool first = true;; first = false) {
    FD_ASSIGN_OR_RETURN(const bool more, scanner.More('}', first));
    if (!more) return OkStatus();
    std::string key;
    FD_RETURN_IF_ERROR(scanner.String(key));
    if (!seen.insert(key).second) return scanner.Error(StrCat("\"", key, "\" stands twice"));
    FD_RETURN_IF_ERROR(scanner.Expect(':'));
    FD_RETURN_IF_ERROR(visit(key));
  }
}

Status ParseModel(JsonScanner& scanner, TokenizerJson& out) {
  FD_RETURN_IF_ERROR(VisitMembers(scanner, [&](const std::string& key) -> Status {
    scanner.Peek();
    const size_t offset = scanner.offset();
    FD_ASSIGN_OR_RETURN(const std::string_view raw, scanner.Raw());
    if (key == "vocab") {
      out.vocab = raw;
      out.vocab_offset = offset;
      return OkStatus();
    }
    if (key == "merges") {
      out.merges = raw;
      out.merges_offset = offset;
      return OkStatus();
    }
    StatusOr<Json> json = ParseJson(raw);
    if (!json.ok()) return json.status().WithContext("model." + key);
    return ParseModelMember(key, *json, out);
  }));
  if (out.vocab.empty() || out.merges.empty())
    return NotSupported("model", "one without vocab and merges (not BPE)");
  return OkStatus();
}

}  // namespace

StatusOr<TokenizerJson> ParseTokenizerJson(std::string_view file) {
  TokenizerJson out;
  Json normalizer, pre_tokenizer, post_processor, decoder, added;
  bool has_model = false;
  JsonScanner scanner(file);
  FD_RETURN_IF_ERROR(VisitMembers(scanner, [&](const std::string& key) -> Status {
    if (key == "model") {
      has_model = true;
      return ParseModel(scanner, out);
    }
    FD_ASSIGN_OR_RETURN(const std::string_view raw, scanner.Raw());
    StatusOr<Json> json = ParseJson(raw);
    if (!json.ok()) return json.status().WithContext(key);
    const std::pair<const char*, Json*> parts[] = {{"normalizer", &normalizer},
                                                   {"pre_tokenizer", &pre_tokenizer},
                                                   {"post_processor", &post_processor},
                                                   {"decoder", &decoder},
                                                   {"added_tokens", &added}};
    for (const auto& [name, part] : parts) {
      if (key == name) *part = std::move(json).value();
    }
    return OkStatus();
  }));
  if (scanner.Peek() != '\0') return scanner.Error("more text after the object");
  if (!has_model) return InvalidArgument("there is no \"model\"");
  FD_RETURN_IF_ERROR(ParseAdded(added, out));
  FD_RETURN_IF_ERROR(ParseNormalizer(normalizer, out));
  FD_RETURN_IF_ERROR(ParsePreTokenizer(pre_tokenizer, out));
  FD_RETURN_IF_ERROR(ParsePostProcessor(post_processor, out));
  FD_RETURN_IF_ERROR(ParseDecoder(decoder, out));
  return out;
}

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size());
  for (size_t at; (at = text.find(from)) != text.npos; text.remove_prefix(at + from.size())) {
    out += text.substr(0, at);
    out += to;
  }
  out += text;
  return out;
}

}  // namespace fd
