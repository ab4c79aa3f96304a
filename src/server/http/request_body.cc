#include "server/http/request_body.h"

#include "server/messages/messages_errors.h"
#include "server/messages/messages_request.h"
#include "server/openai/openai_writer.h"
#include "server/responses/translate.h"

namespace fd {

StatusOr<TranslatedRequest> ReadRequestBody(const Service& service, RouteKind kind, std::string_view body) {
  FD_ASSIGN_OR_RETURN(Json json, ParseRequestBody(body));
  if (kind == RouteKind::kResponses) return TranslateResponses(service, std::move(json));
  if (kind == RouteKind::kMessages) return TranslateMessages(service, std::move(json));
  if (kind == RouteKind::kCountMessagesTokens) {
    return TranslateMessages(service, std::move(json), MessagesUse::kCount);
  }
  TranslatedRequest request;
  request.body = std::move(json);
  request.endpoint = kind == RouteKind::kCompletions ? ApiEndpoint::kCompletions : ApiEndpoint::kChat;
  request.writer = MakeOpenAiWriter();
  return request;
}

std::string ErrorBody(const HttpRequest& request, const ApiError& error) {
  switch (ShapeOf(request.path, request.anthropic_client)) {
    case ApiShape::kAnthropic:
      return MessagesErrorJson(error, request.id);
    case ApiShape::kOpenAi:
      break;
  }
  return ErrorJson(error);
}

}  // namespace fd
