#include "server/chat/jinja.h"

#include <gtest/gtest.h>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

std::string RenderText(std::string_view source, const Json& variables = JsonObject(),
                       JinjaLimits limits = {}) {
  StatusOr<JinjaTemplate> t = JinjaTemplate::Parse(source);
  if (!t.ok()) return "PARSE " + t.status().message();
  StatusOr<JinjaTemplate::Result> r = t->Render(variables, limits, std::tm{});
  return r.ok() ? r->text : "ERROR " + r.status().message();
}

TEST(Jinja, GoldenCasesOfTransformers) {
  StatusOr<Json> file = ReadJsonFile("tests/golden/templates/cases.json");
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::tm now{};
  ASSERT_NE(strptime(file->Find("now")->as_string().c_str(), "%Y-%m-%dT%H:%M:%S", &now), nullptr);
  int checked = 0;
  for (const Json& c : file->Find("cases")->as_array()) {
    const std::string& id = c.Find("id")->as_string();
    StatusOr<std::string> source =
        ReadFile(StrCat("tests/golden/templates/", c.Find("template")->as_string(), ".jinja"));
    ASSERT_TRUE(source.ok());
    StatusOr<JinjaTemplate> t = JinjaTemplate::Parse(*source);
    ASSERT_TRUE(t.ok()) << id << ": " << t.status().message();
    JsonObject variables = c.Find("kwargs")->as_object();
    for (const char* name : {"messages", "tools", "documents", "add_generation_prompt"})
      variables.Set(name, *c.Find(name));
    StatusOr<JinjaTemplate::Result> r = t->Render(variables, {}, now);
    ++checked;
    if (const Json* error = c.Find("error")) {
      EXPECT_FALSE(r.ok()) << id;
      if (!r.ok() && c.Find("error_type")->as_string() == "raise_exception") {
        EXPECT_EQ(r.status().message(), error->as_string()) << id;
      }
      continue;
    }
    ASSERT_TRUE(r.ok()) << id << ": " << r.status().message();
    EXPECT_EQ(r->text, c.Find("text")->as_string()) << id;
    if (const Json* spans = c.Find("generation_spans")) {
      JsonArray got;
      for (const auto& [begin, end] : r->generation_spans) got.push_back(JsonArray{Json(begin), Json(end)});
      EXPECT_EQ(WriteJson(got), WriteJson(*spans)) << id;
    }
  }
  EXPECT_EQ(checked, 108);
}

TEST(Jinja, HostileTemplatesEndWithAnError) {
  std::string parens(5000, '('), brackets(5000, '['), sum = "1", ifs;
  for (int i = 0; i < 5000; ++i) sum += "+1";
  for (int i = 0; i < 5000; ++i) ifs += "{% if true %}";
  for (const std::string& source : {
           std::string("{{ 'x' * 10**10 }}"),
           std::string("{{ range(10**9) | list }}"),
           std::string("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"),
           std::string("{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(100) %}{% set ns.s = ns.s ~ "
                       "ns.s %}{% endfor %}{{ ns.s }}"),
           std::string("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% "
                       "endfor %}{{ ns.l }}"),
           std::string("{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l "
                       "%}{% endfor %}"),
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{{ [1] | tojson(indent=10**9) }}"),
           std::string("{{ '%999999999d' % 1 }}"),
           std::string("{{ '{:999999999}'.format('x') }}"),
           std::string("{{ 'x'.center(10**9) }}"),
           std::string("{{ 'a' | indent(10**9) }}"),
           std::string("{{ ''.__class__.__mro__ }}"),
           std::string("{{ [].append(1) }}"),
           std::string("{{ [1][,0] }}"),
           std::string("{{ [1][0,] }}"),
           std::string("{{ [1][] }}"),
           std::string("{{ [1][:,0] }}"),
           "{{ " + parens + " }}",
           "{{ " + brackets + " }}",
           "{{ " + sum + " }}",
           ifs,
       }) {
    std::string text = RenderText(source);
    EXPECT_TRUE(text.starts_with("ERROR") || text.starts_with("PARSE"))
        << source.substr(0, 80) << " gave " << text.substr(0, 80);
  }
}

TEST(Jinja, RingsOfNamespacesAreFreed) {
  EXPECT_EQ(RenderText("{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = [b] %}{{ a.b[0].a "
                       "is sameas a }}"),
            "True");
}

TEST(Jinja, ErrorsNameTheLine) {
  EXPECT_NE(RenderText("a\nb\n{% foo %}").find("line 3"), std::string::npos);
  EXPECT_NE(RenderText("a\n{{ 1 + 'x' }}").find("line 2"), std::string::npos);
}

}  // namespace
}  // namespace fd
