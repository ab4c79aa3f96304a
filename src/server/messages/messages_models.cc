#include "server/messages/messages_models.h"

#include <ctime>
#include <utility>

#include "base/json.h"

namespace fd {
namespace {

// RFC 3339, in UTC.
std::string DateTime(int64_t unix_s) {
  const auto seconds = static_cast<std::time_t>(unix_s);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return {text, length};
}

Json Describe(const Service& service, const std::string& name) {
  return JsonObject{{"type", "model"},
                    {"id", name},
                    {"display_name", name},
                    {"created_at", DateTime(service.created_unix_s)},
                    {"lifecycle", "active"},
                    {"max_input_tokens", service.max_model_len},
                    {"max_tokens", service.max_model_len}};
}

}  // namespace

std::string MessagesModelsJson(const Service& service) {
  JsonArray data;
  for (const std::string& name : service.model_names) data.push_back(Describe(service, name));
  return WriteJson(JsonObject{{"data", std::move(data)},
                              {"has_more", false},
                              {"first_id", service.model_names.front()},
                              {"last_id", service.model_names.back()}});
}

std::string MessagesModelJson(const Service& service, const std::string& name) {
  return WriteJson(Describe(service, name));
}

}  // namespace fd
