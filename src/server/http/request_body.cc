#include "server/http/request_body.h"

#include "server/openai/openai_writer.h"

namespace fd {

StatusOr<TranslatedRequest> ReadRequestBody(const Service& /*service*/, RouteKind kind,
                                            std::string_view body) {
  TranslatedRequest request;
  FD_ASSIGN_OR_RETURN(request.body, ParseRequestBody(body));
  request.endpoint = kind == RouteKind::kCompletions ? ApiEndpoint::kCompletions : ApiEndpoint::kChat;
  request.writer = MakeOpenAiWriter();
  return request;
}

}  // namespace fd
