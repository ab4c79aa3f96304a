// Every small template of tests/golden/templates/expressions.json against what Jinja2 itself gave.
#include <gtest/gtest.h>

#include "base/files.h"
#include "server/chat/jinja.h"

namespace fd {
namespace {

TEST(JinjaExpressions, AgreeWithJinja2) {
  StatusOr<Json> file = ReadJsonFile("tests/golden/templates/expressions.json");
  ASSERT_TRUE(file.ok()) << file.status().message();
  std::tm now{};
  ASSERT_NE(strptime(file->Find("now")->as_string().c_str(), "%Y-%m-%dT%H:%M:%S", &now), nullptr);
  const JsonArray& cases = file->Find("cases")->as_array();
  EXPECT_GE(cases.size(), 900u);
  for (const Json& c : cases) {
    const std::string& source = c.Find("template")->as_string();
    StatusOr<JinjaTemplate> t = JinjaTemplate::Parse(source);
    StatusOr<JinjaTemplate::Result> r =
        t.ok() ? t->Render(*file->Find("variables"), {}, now) : StatusOr<JinjaTemplate::Result>(t.status());
    if (const Json* error = c.Find("error")) {
      EXPECT_FALSE(r.ok()) << source << "\n  gave:   " << r->text << "\n  Jinja2: " << error->as_string();
    } else {
      EXPECT_TRUE(r.ok()) << source << "\n  failed: " << r.status().message()
                          << "\n  Jinja2: " << c.Find("text")->as_string();
      if (r.ok()) {
        EXPECT_EQ(r->text, c.Find("text")->as_string()) << source;
      }
    }
  }
}

}  // namespace
}  // namespace fd
