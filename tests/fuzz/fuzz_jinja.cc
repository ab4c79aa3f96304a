// Any bytes as a template, over a small conversation: an error or a text within the limits, and spans inside
// it.
#include <cstdlib>

#include "server/chat/jinja.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 64 << 10) return 0;
  fd::StatusOr<fd::JinjaTemplate> t = fd::JinjaTemplate::Parse({reinterpret_cast<const char*>(data), size});
  if (!t.ok()) return 0;
  static const fd::Json* variables = new fd::Json(*fd::ParseJson(
      R"({"messages": [{"role": "user", "content": "Hé, <x>\n b"}, {"role": "assistant", "content": "1</think> y"}], "tools": null, "n": 2.5})"));
  fd::JinjaLimits limits;
  limits.max_instructions = 20'000;
  limits.max_output_bytes = 64 << 10;
  fd::StatusOr<fd::JinjaTemplate::Result> r = t->Render(*variables, limits, std::tm{});
  if (!r.ok()) return 0;
  if (static_cast<int64_t>(r->text.size()) > limits.max_output_bytes) std::abort();
  size_t at = 0;
  for (const auto& [begin, end] : r->user_spans) {
    if (begin < at || end <= begin || end > r->text.size()) std::abort();
    at = end;
  }
  return 0;
}
