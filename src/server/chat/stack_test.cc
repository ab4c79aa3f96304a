// The deepest nesting that the parser and the interpreter let through fits a small stack, sanitizers
// included.
#include <gtest/gtest.h>
#include <pthread.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "server/chat/jinja.h"

namespace fd {
namespace {

constexpr size_t kStack = 8 << 20, kAllowed = 1 << 20;

struct Work {
  std::string source;
  Json variables = JsonObject();
  std::string result;
};

void* Render(void* argument) {
  auto* work = static_cast<Work*>(argument);
  StatusOr<JinjaTemplate> t = JinjaTemplate::Parse(work->source);
  if (!t.ok()) {
    work->result = "PARSE " + t.status().message();
    return nullptr;
  }
  StatusOr<JinjaTemplate::Result> r = t->Render(work->variables, {}, std::tm{});
  work->result = r.ok() ? "OK" : "ERROR " + r.status().message();
  return nullptr;
}

// Bytes of stack that parsing, rendering and freeing took: the stack is painted first.
size_t StackUsed(Work& work) {
  constexpr unsigned char kPaint = 0xA5;
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, kStack) != 0) return kStack;
  auto* stack = static_cast<unsigned char*>(memory);
  std::memset(stack, kPaint, kStack);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, kStack);
  pthread_t thread;
  if (pthread_create(&thread, &attributes, Render, &work) != 0) return kStack;
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  size_t untouched = 0;
  while (untouched < kStack && stack[untouched] == kPaint) ++untouched;
  std::free(memory);
  return kStack - untouched;
}

std::string Times(const std::string& s, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += s;
  return out;
}

struct Shape {
  const char* name;
  std::function<std::string(int)> source;  // n levels
};

const std::vector<Shape>& Shapes() {
  static const auto* shapes = new std::vector<Shape>{
      {"parentheses", [](int n) { return "{{ " + Times("(", n) + "1" + Times(")", n) + " }}"; }},
      {"lists", [](int n) { return "{{ " + Times("[", n) + "1" + Times("]", n) + " }}"; }},
      {"dicts", [](int n) { return "{{ " + Times("{1: ", n) + "1" + Times("}", n) + " }}"; }},
      {"tojson", [](int n) { return "{{ " + Times("[", n) + "1" + Times("]", n) + " | tojson }}"; }},
      {"not", [](int n) { return "{{ " + Times("not ", n) + "1 }}"; }},
      {"minus", [](int n) { return "{{ " + Times("-", n) + "1 }}"; }},
      {"sum", [](int n) { return "{{ 1" + Times(" + 1", n) + " }}"; }},
      {"power", [](int n) { return "{{ 1" + Times(" ** 1", n) + " }}"; }},
      {"and", [](int n) { return "{{ 1" + Times(" and 1", n) + " }}"; }},
      {"if else", [](int n) { return "{{ 1" + Times(" if 0 else 1", n) + " }}"; }},
      {"filters", [](int n) { return "{{ 'a'" + Times(" | trim", n) + " }}"; }},
      {"filter arguments",
       [](int n) { return "{{ " + Times("x | default(", n) + "1" + Times(")", n) + " }}"; }},
      {"slices", [](int n) { return "{{ 'a'" + Times("[0:]", n) + " }}"; }},
      {"slice parts", [](int n) { return "{{ " + Times("'a'[", n) + "0" + Times(":]", n) + " }}"; }},
      {"methods", [](int n) { return "{{ 'a'" + Times(".strip()", n) + " }}"; }},
      {"calls", [](int n) { return "{{ " + Times("dict(a=", n) + "1" + Times(")", n) + " }}"; }},
      {"format", [](int n) { return "{{ " + Times("'%s' % (", n) + "1" + Times(")", n) + " }}"; }},
      {"tests", [](int n) { return "{{ " + Times("1 is eq(", n) + "1" + Times(")", n) + " }}"; }},
      {"if", [](int n) { return Times("{% if 1 %}", n) + "x" + Times("{% endif %}", n); }},
      {"for", [](int n) { return Times("{% for i in [1] %}", n) + "x" + Times("{% endfor %}", n); }},
      {"for if", [](int n) { return Times("{% for i in [1] if 1 %}", n) + "x" + Times("{% endfor %}", n); }},
      {"with", [](int n) { return Times("{% with a = 1 %}", n) + "x" + Times("{% endwith %}", n); }},
      {"filter block",
       [](int n) { return Times("{% filter trim %}", n) + "x" + Times("{% endfilter %}", n); }},
      {"set block", [](int n) { return Times("{% set a %}", n) + "x" + Times("{% endset %}", n); }},
      {"generation",
       [](int n) { return Times("{% generation %}", n) + "x" + Times("{% endgeneration %}", n); }},
      {"call block",
       [](int n) {
         return "{% macro m() %}{{ caller() }}{% endmacro %}" + Times("{% call m() %}", n) + "x" +
                Times("{% endcall %}", n);
       }},
      {"value depth",
       [](int n) {
         return "{% set ns = namespace(l=[], k=[]) %}{% for i in range(" + std::to_string(n) +
                ") %}{% set ns.l = [ns.l] %}{% set ns.k = [ns.k] %}{% endfor %}{{ ns.l == ns.k }}{{ ns.l < "
                "ns.k }}"
                "{{ ns.l }}{{ ns.l | tojson }}";
       }},
      {"map of map", [](int n) { return "{{ 'a' | map(" + Times("'map', ", n) + "'upper') | list }}"; }},
      {"ring of namespaces",
       [](int n) {
         return "{% set ns = namespace(v=1) %}" + std::string(n > 1 ? "{% set ns.v = [ns] %}" : "") +
                "{{ ns }}";
       }},
      {"recursive loop",
       [](int n) {
         return "{% for i in [" + std::to_string(n) +
                "] recursive %}{% if i %}{{ loop([i - 1]) }}{% endif %}{% endfor %}";
       }},
  };
  return *shapes;
}

// Macros that call themselves through as many levels of something else as one turn may have.
std::string Recursion(const std::string& before, const std::string& after, int inner, int turns) {
  return "{% macro m(i) %}{% if i %}" + Times(before, inner) + "{{ m(i - 1) }}" + Times(after, inner) +
         "{% endif %}{% endmacro %}{{ m(" + std::to_string(turns) + ") }}";
}
std::string ExpressionRecursion(const std::string& before, const std::string& after, int inner, int turns) {
  return "{% macro m(i) %}{% if i %}{{ " + Times(before, inner) + "m(i - 1)" + Times(after, inner) +
         " }}{% endif %}{% endmacro %}{{ m(" + std::to_string(turns) + ") }}";
}

TEST(JinjaStack, DeepestNestingFitsOneMebibyte) {
  size_t most = 0;
  std::string worst;
  auto measure = [&](const std::string& name, const std::function<std::string(int)>& source) {
    // The deepest that works, and one more, which fails: both must fit.
    int low = 1, high = 400;
    Work work;
    while (low < high) {
      int mid = (low + high + 1) / 2;
      work.source = source(mid);
      Render(&work);
      work.result == "OK" ? low = mid : high = mid - 1;
    }
    for (int n : {low, low + 1}) {
      work.source = source(n);
      size_t used = StackUsed(work);
      EXPECT_LT(used, kAllowed) << name << ", " << n << " levels: " << work.result;
      if (used > most) {
        most = used;
        worst = name;
      }
    }
  };
  for (const Shape& shape : Shapes()) measure(shape.name, shape.source);
  const std::pair<const char*, const char*> kBlocks[] = {{"", ""},
                                                         {"{% for j in [1] %}", "{% endfor %}"},
                                                         {"{% filter trim %}", "{% endfilter %}"},
                                                         {"{% if 1 %}", "{% endif %}"},
                                                         {"{% generation %}", "{% endgeneration %}"}};
  const std::pair<const char*, const char*> kExpressions[] = {
      {"[", "]"}, {"1 and ", ""}, {"x | default(", ")"}, {"'%s' % (", ")"}, {"'a'.replace('b', ", ")"}};
  for (int inner : {1, 3, 12, 40}) {
    for (const auto& [before, after] : kBlocks)
      measure(before + std::string(" x ") + std::to_string(inner),
              [&, b = before, a = after](int n) { return Recursion(b, a, inner, n); });
    for (const auto& [before, after] : kExpressions)
      measure(before + std::string(" x ") + std::to_string(inner),
              [&, b = before, a = after](int n) { return ExpressionRecursion(b, a, inner, n); });
  }
  RecordProperty("stack_bytes", std::to_string(most));
  RecordProperty("worst", worst);
}

}  // namespace
}  // namespace fd
