#include "server/http/request_body.h"

#include "server/messages/messages_errors.h"
#include "server/messages/messages_request.h"
#include "server/openai/openai_writer.h"

namespace fd {

StatusOr<TranslatedRequest> ReadRequestBody(const Service& service, RouteKind kind, std::string_view body) {
  TranslatedRequest request;
  FD_ASSIGN_OR_RETURN(request.body, ParseRequestBody(body));
  if (kind == RouteKind::kMessages) return TranslateMessages(service, std::move(request.body));
  if (kind == RouteKind::kCountMessagesTokens) {
    return TranslateMessages(service, std::move(request.body), MessagesUse::kCount);
  }
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
