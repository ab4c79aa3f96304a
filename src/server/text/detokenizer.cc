#include "server/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"

namespace fd {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

Detokenizer::Detokenizer(const Tokenizer* tokenizer, bool skip_special, std::vector<std::string> stop,
                         bool include_stop)
    : tokenizer_(tokenizer), skip_special_(skip_special), include_stop_(include_stop) {
  for (const std::string& text : stop) {
    if (text.empty()) continue;
    Stop s;
    s.text = ReplaceInvalidUtf8(text);
    s.fallback.resize(s.text.size(), 0);
    for (size_t i = 1, k = 0; i < s.text.size(); ++i) {
      while (k > 0 && s.text[i] != s.text[k]) k = s.fallback[k - 1];
      if (s.text[i] == s.text[k]) ++k;
      s.fallback[i] = k;
    }
    stops_.push_back(std::move(s));
  }
}

std::string Detokenizer::Push(int32_t id) {
  if (stopped_) return {};
  std::string added = tokenizer_->TokenBytes(id, skip_special_);
  if (added.empty()) return {};
  if (first_ && tokenizer_->strips_leading_space() && added[0] == ' ') added.erase(0, 1);
  first_ = false;
  bytes_ += added;
  return Release(false);
}

std::string Detokenizer::PushText(std::string_view text) {
  if (stopped_) return {};
  first_ = false;
  bytes_ += text;
  return Release(false);
}

std::string Detokenizer::Flush() {
  if (stopped_) return {};
  return Release(true);
}

bool Detokenizer::Hold(std::string_view text) {
  for (char c : text) {
    held_.push_back(c);
    const Stop* found = nullptr;
    for (Stop& s : stops_) {
      while (s.matched > 0 && s.text[s.matched] != c) s.matched = s.fallback[s.matched - 1];
      if (s.text[s.matched] == c) ++s.matched;
      if (s.matched == s.text.size() && (found == nullptr || s.text.size() > found->text.size())) found = &s;
    }
    if (found == nullptr) continue;
    stopped_ = true;
    stop_found_ = found->text;
    return true;
  }
  return false;
}

std::string Detokenizer::Release(bool at_end) {
  std::string_view rest = bytes_;
  while (!rest.empty()) {
    const Utf8Char c = DecodeUtf8(rest);
    if (c.truncated && !at_end) break;
    if (Hold(c.well_formed ? rest.substr(0, c.length_bytes) : kReplacement)) {
      if (!include_stop_) held_.resize(held_.size() - stop_found_.size());
      bytes_.clear();
      return std::exchange(held_, {});
    }
    rest.remove_prefix(c.length_bytes);
  }
  bytes_.erase(0, bytes_.size() - rest.size());

  size_t ready = held_.size();
  if (!at_end) {
    for (const Stop& s : stops_) ready = std::min(ready, held_.size() - s.matched);
    // A U+FFFD at the end waits for what follows, as clients know it from other servers.
    while (std::string_view(held_).substr(0, ready).ends_with(kReplacement)) ready -= kReplacement.size();
  }
  std::string out = held_.substr(0, ready);
  held_.erase(0, ready);
  return out;
}

}  // namespace fd
