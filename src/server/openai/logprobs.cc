#include "server/openai/logprobs.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <string_view>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"

namespace fd {
namespace {

LogprobEntry::Token MakeToken(const Tokenizer& tokenizer, int32_t id, float logprob) {
  LogprobEntry::Token token;
  token.bytes = tokenizer.TokenBytes(id, /*skip_special=*/false);
  token.logprob = logprob;
  if (IsValidUtf8(token.bytes)) {
    token.text = token.bytes;
    return token;
  }
  token.text = "bytes:";
  for (unsigned char c : token.bytes) {
    token.text += "\\x";
    token.text += "0123456789abcdef"[c >> 4];
    token.text += "0123456789abcdef"[c & 15];
  }
  return token;
}

// JSON has no infinities; OpenAI writes -9999 for what cannot happen.
void AppendLogprob(std::string& out, float logprob) {
  constexpr double kNever = -9999;
  const double x = std::isfinite(logprob) ? static_cast<double>(logprob) : kNever;
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", x == 0 ? 0.0 : x);
  out += text;
}

void AppendToken(std::string& out, const LogprobEntry::Token& token, bool with_bytes) {
  out += "{\"token\":";
  AppendJsonString(out, token.text);
  out += ",\"logprob\":";
  AppendLogprob(out, token.logprob);
  if (!with_bytes) return;
  out += ",\"bytes\":[";
  for (size_t i = 0; i < token.bytes.size(); ++i) {
    if (i > 0) out += ',';
    out += StrCat(static_cast<int>(static_cast<unsigned char>(token.bytes[i])));
  }
  out += ']';
}

}  // namespace

LogprobEntry MakeLogprobEntry(const Tokenizer& tokenizer, int32_t token_id, float logprob,
                              const std::vector<TokenLogprob>& top, bool skip_special, int64_t* text_offset) {
  LogprobEntry entry;
  entry.token = MakeToken(tokenizer, token_id, logprob);
  for (const TokenLogprob& t : top) entry.top.push_back(MakeToken(tokenizer, t.token_id, t.logprob));
  entry.text_offset = *text_offset;
  // A character counts with the token that begins it.
  for (char c : tokenizer.TokenBytes(token_id, skip_special)) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++*text_offset;
  }
  return entry;
}

void SpellAsTokenIds(int32_t token_id, const std::vector<TokenLogprob>& top, LogprobEntry* entry) {
  entry->token.text = StrCat("token_id:", token_id);
  for (size_t i = 0; i < entry->top.size(); ++i) entry->top[i].text = StrCat("token_id:", top[i].token_id);
}

std::vector<LogprobEntry> EchoEntries(const Tokenizer& tokenizer, int32_t first_id,
                                      const std::vector<PromptLogprob>& logprobs, int32_t top) {
  std::vector<LogprobEntry> entries;
  entries.reserve(logprobs.size() + 1);
  int64_t offset = 0;
  entries.push_back(MakeLogprobEntry(tokenizer, first_id, 0, {}, /*skip_special=*/true, &offset));
  entries.back().is_first = true;
  for (const PromptLogprob& p : logprobs) {
    const auto count = std::min(p.top.size(), static_cast<size_t>(std::max(top, 0)));
    const std::vector<TokenLogprob> likeliest(p.top.begin(), p.top.begin() + static_cast<int64_t>(count));
    entries.push_back(
        MakeLogprobEntry(tokenizer, p.token_id, p.logprob, likeliest, /*skip_special=*/true, &offset));
  }
  return entries;
}

void AppendPromptLogprobs(std::string& out, const Tokenizer& tokenizer,
                          const std::vector<PromptLogprob>& logprobs, int32_t top) {
  const auto add = [&](int32_t id, float logprob, int32_t rank) {
    out += StrCat("\"", id, "\":{\"logprob\":");
    AppendLogprob(out, logprob);
    out += StrCat(",\"rank\":", rank, ",\"decoded_token\":");
    AppendJsonString(out, MakeToken(tokenizer, id, logprob).text);
    out += '}';
  };
  out += "[null";
  for (const PromptLogprob& p : logprobs) {
    out += ",{";
    add(p.token_id, p.logprob, p.rank);
    for (int32_t k = 0; k < top && k < std::ssize(p.top); ++k) {
      const TokenLogprob& t = p.top[static_cast<size_t>(k)];
      if (t.token_id == p.token_id) continue;
      out += ',';
      add(t.token_id, t.logprob, k + 1);
    }
    out += '}';
  }
  out += ']';
}

void AppendLogprobList(std::string& out, const std::vector<LogprobEntry>& entries, bool with_bytes) {
  out += '[';
  const char* separator = "";
  for (const LogprobEntry& entry : entries) {
    out += separator;
    separator = ",";
    AppendToken(out, entry.token, with_bytes);
    out += ",\"top_logprobs\":[";
    for (size_t i = 0; i < entry.top.size(); ++i) {
      if (i > 0) out += ',';
      AppendToken(out, entry.top[i], with_bytes);
      out += '}';
    }
    out += "]}";
  }
  out += ']';
}

void AppendChatLogprobs(std::string& out, const std::vector<LogprobEntry>& entries) {
  out += "{\"content\":";
  AppendLogprobList(out, entries, /*with_bytes=*/true);
  out += ",\"refusal\":null}";
}

void AppendCompletionLogprobs(std::string& out, const std::vector<LogprobEntry>& entries, bool with_top) {
  const auto list = [&](const char* name, auto append) {
    out += StrCat("\"", name, "\":[");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out += ',';
      append(entries[i]);
    }
    out += ']';
  };
  out += '{';
  list("tokens", [&](const LogprobEntry& e) { AppendJsonString(out, e.token.text); });
  out += ',';
  list("token_logprobs", [&](const LogprobEntry& e) {
    if (e.is_first) {
      out += "null";
    } else {
      AppendLogprob(out, e.token.logprob);
    }
  });
  out += ',';
  if (with_top) {
    list("top_logprobs", [&](const LogprobEntry& e) {
      if (e.is_first) {
        out += "null";
        return;
      }
      std::set<std::string_view> seen;  // tokens may be spelled alike; a key stands once
      const auto add = [&](const LogprobEntry::Token& token) {
        if (!seen.insert(token.text).second) return;
        if (seen.size() > 1) out += ',';
        AppendJsonString(out, token.text);
        out += ':';
        AppendLogprob(out, token.logprob);
      };
      out += '{';
      for (const auto& token : e.top) add(token);
      add(e.token);
      out += '}';
    });
  } else {
    out += "\"top_logprobs\":null";
  }
  out += ',';
  list("text_offset", [&](const LogprobEntry& e) { out += StrCat(e.text_offset); });
  out += '}';
}

}  // namespace fd
