#include "server/text/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/strings.h"

namespace fd {
namespace {

// \s is White_Space in the library that these patterns are written for; PCRE2's \s also takes U+180E.
std::string WithUnicodeSpace(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      out += pattern[i];
      continue;
    }
    const char c = pattern[++i];
    if (c == 's') {
      out += "\\p{White_Space}";
    } else if (c == 'S') {
      out += "\\P{White_Space}";
    } else {
      out += '\\';
      out += c;
    }
  }
  return out;
}

}  // namespace

struct SplitPattern::Code {
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
};

StatusOr<SplitPattern> SplitPattern::Compile(const std::string& source) {
  const std::string pattern = WithUnicodeSpace(source);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Code>();
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (compiled->code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    return InvalidArgument(StrCat("split pattern \"", pattern, "\": ", reinterpret_cast<const char*>(message),
                                  " at offset ", uint64_t{offset}));
  }
  // Where no executable memory may be had, PCRE2 interprets the pattern.
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  compiled->context = pcre2_match_context_create(nullptr);
  if (compiled->context == nullptr) return Internal("split pattern: out of memory");
  pcre2_set_match_limit(compiled->context, 10'000'000);
  pcre2_set_heap_limit(compiled->context, 64 * 1024);  // KiB
  SplitPattern result;
  result.code_ = std::move(compiled);
  return result;
}

void SplitPattern::Split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t taken = 0;  // end of the last piece
  size_t at = 0;
  while (data != nullptr && at < text.size()) {
    // The check of the whole subject at each match would make a long text quadratic; it is well-formed.
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(code_->code, subject, text.size(), at, kOptions, data.get(), code_->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_->code, subject, text.size(), at, kOptions | PCRE2_NO_JIT, data.get(),
                       code_->context);
    }
    if (rc < 0) break;
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    // \K can move the start of a match; such a pattern is used as far as it moves forward.
    if (range[0] < taken || range[1] <= range[0]) break;
    if (range[0] > taken) pieces.push_back(text.substr(taken, range[0] - taken));
    pieces.push_back(text.substr(range[0], range[1] - range[0]));
    taken = at = range[1];
  }
  if (taken < text.size()) pieces.push_back(text.substr(taken));
}

}  // namespace fd
