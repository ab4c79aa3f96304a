#include "server/chat/jinja.h"

#include <algorithm>

#include "base/strings.h"
#include "server/chat/jinja/interpreter.h"
#include "server/chat/jinja/parser.h"

namespace fd {

struct JinjaTemplate::Impl {
  jinja::Body body;
};

JinjaTemplate::JinjaTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

StatusOr<JinjaTemplate> JinjaTemplate::Parse(std::string_view source) {
  StatusOr<jinja::Body> body = jinja::ParseTemplate(source);
  if (!body.ok()) return body.status().WithContext("chat template");
  auto impl = std::make_unique<Impl>();
  impl->body = std::move(*body);
  return JinjaTemplate(std::move(impl));
}

StatusOr<JinjaTemplate::Result> JinjaTemplate::Render(const Json& variables, const JinjaLimits& limits,
                                                      const std::tm& now,
                                                      const std::vector<std::string>& trusted) const {
  if (!variables.is_object())
    return InvalidArgument(StrCat("template variables: expected an object, got ", variables.TypeName()));
  std::vector<std::pair<jinja::Value, jinja::Value>> context;
  for (const auto& [name, json] : variables.as_object()) {
    jinja::Value value;
    bool user = std::find(trusted.begin(), trusted.end(), name) == trusted.end();
    if (!jinja::Value::FromJson(json, user, &value)) {
      return InvalidArgument(StrCat("template variable '", name, "' is nested more than ",
                                    jinja::kMaxValueDepth, " levels deep"));
    }
    context.emplace_back(jinja::Value::String(name), std::move(value));
  }
  jinja::Interpreter interpreter(limits, now);
  interpreter.Run(impl_->body, jinja::Value::Dict(std::move(context)));
  if (!interpreter.status().ok()) return interpreter.status();
  Result result;
  for (const jinja::ByteRange& r : interpreter.output().user())
    result.user_spans.emplace_back(r.begin, r.end);
  result.text = interpreter.output().bytes();
  result.generation_spans = interpreter.generation_spans();
  return result;
}

}  // namespace fd
