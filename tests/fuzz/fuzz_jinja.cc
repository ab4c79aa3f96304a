// Any bytes as a template, and the same bytes as a choice of tokens, which parses far more often, over a
// small conversation: an error or a text within the limits, and spans inside it.
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>

#include "server/chat/jinja.h"

namespace {

void RunOne(std::string_view source) {
  fd::StatusOr<fd::JinjaTemplate> t = fd::JinjaTemplate::Parse(source);
  if (!t.ok()) return;
  static const fd::Json* variables = new fd::Json(*fd::ParseJson(
      R"({"messages": [{"role": "user", "content": "Hé, <x>\n b"}, {"role": "assistant", "content": "1</think> y"}], "tools": null, "n": 2.5})"));
  fd::JinjaLimits limits;
  limits.max_instructions = 20'000;
  limits.max_output_bytes = 64 << 10;
  fd::StatusOr<fd::JinjaTemplate::Result> r = t->Render(*variables, limits, std::tm{});
  if (!r.ok()) return;
  if (static_cast<int64_t>(r->text.size()) > limits.max_output_bytes) std::abort();
  size_t at = 0;
  for (const auto& [begin, end] : r->user_spans) {
    if (begin < at || end <= begin || end > r->text.size()) std::abort();
    at = end;
  }
}

// One expression: a value, then what may follow it, as the bytes choose.
std::string FromTokens(const uint8_t* data, size_t size) {
  static const char* const kValues[] = {"messages",
                                        "messages[0].content",
                                        "messages[1]['content']",
                                        "n",
                                        "tools",
                                        "missing",
                                        "'aé,%s{}b'",
                                        "-3",
                                        "2.5",
                                        "[1, 'x', none]",
                                        "{'a': 1, 2: [3]}",
                                        "range(5)",
                                        "''",
                                        "true",
                                        "'%5d|%.2f|%r'",
                                        "'{0:>5}{1!r}{a}'",
                                        "namespace(a=1)",
                                        "(1, 2)"};
  static const char* const kAfter[] = {" | upper",
                                       " | list",
                                       " | join(',')",
                                       " | sort",
                                       " | first",
                                       " | last",
                                       " | reverse",
                                       " | length",
                                       " | tojson(indent=1)",
                                       " | unique",
                                       " | map('string')",
                                       " | map(attribute='role')",
                                       " | select",
                                       " | groupby('role')",
                                       " | batch(2, 0)",
                                       " | slice(3)",
                                       " | default(1, true)",
                                       " | int(7, 16)",
                                       " | float",
                                       " | round(1)",
                                       " | indent(2, true)",
                                       " | truncate(4)",
                                       " | striptags",
                                       " | urlencode",
                                       " | dictsort",
                                       " | items",
                                       " | title",
                                       " | replace('a', 'bb')",
                                       " | center(9)",
                                       " | sum",
                                       " | max",
                                       " | string",
                                       " | escape",
                                       " | wordcount",
                                       "[1:]",
                                       "[::-1]",
                                       "[0]",
                                       "['a']",
                                       ".a",
                                       "[-9:2:3]",
                                       ".split(',')",
                                       ".strip('a')",
                                       ".items()",
                                       ".get('a')",
                                       ".format(1, 'é', a=n)",
                                       ".splitlines()",
                                       ".title()",
                                       ".rsplit(none, 1)",
                                       ".zfill(7)",
                                       ".partition(',')",
                                       ".find('b')",
                                       ".casefold()",
                                       " % (1, n)",
                                       " % 'x'",
                                       " * 3",
                                       " + 1",
                                       " ~ 'z'",
                                       " // 2",
                                       " ** 2",
                                       " % 3",
                                       " - 0.5",
                                       " in messages",
                                       " == n",
                                       " < 'b'",
                                       " is string",
                                       " is odd",
                                       " is in 'abc'",
                                       " if n else 1",
                                       " and 2",
                                       " or 3"};
  std::string out = "{% for x in messages %}{{ ";
  for (size_t i = 0; i < size && i < 24; ++i) {
    bool value = i == 0 || data[i] >= 224;
    if (i > 0 && value) out += i % 2 ? " }}{{ " : " ~ ";
    out += value ? kValues[data[i] % std::size(kValues)] : kAfter[data[i] % std::size(kAfter)];
  }
  return out + " }}{% endfor %}";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 64 << 10) return 0;
  RunOne({reinterpret_cast<const char*>(data), size});
  for (size_t at = 0; at < size && at < 240; at += 6)
    RunOne(FromTokens(data + at, std::min<size_t>(size - at, 6)));
  return 0;
}
