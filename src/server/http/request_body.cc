#include "server/http/request_body.h"

#include "server/openai/openai_writer.h"
#include "server/responses/translate.h"

namespace fd {

StatusOr<TranslatedRequest> ReadRequestBody(const Service& service, RouteKind kind, std::string_view body) {
  FD_ASSIGN_OR_RETURN(Json json, ParseRequestBody(body));
  if (kind == RouteKind::kResponses) return TranslateResponses(service, std::move(json));
  TranslatedRequest request;
  request.body = std::move(json);
  request.endpoint = kind == RouteKind::kCompletions ? ApiEndpoint::kCompletions : ApiEndpoint::kChat;
  request.writer = MakeOpenAiWriter();
  return request;
}

}  // namespace fd
