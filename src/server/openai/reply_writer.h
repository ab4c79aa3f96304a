// From what a Generation says to what one API's client reads. Each API has a writer of its own:
// openai_writer.h, server/responses, server/messages.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/openai/errors.h"
#include "server/openai/generation.h"

namespace fd {

// Of one request. Thread: the connection's. The generation is the same in every call and outlives none of
// them.
class ReplyWriter {
 public:
  virtual ~ReplyWriter() = default;

  // Of a stream: server-sent events, appended to `sse` whole ("data: ...\n\n").
  // A delta that is not empty, in the order in which Push gave them.
  virtual void Push(const Generation& generation, int choice, const Delta& delta, std::string& sse) = 0;
  // Once, after the last delta.
  virtual void Finish(const Generation& generation, std::string& sse) = 0;
  // Once, in place of Finish, when the request fails after its stream has begun.
  virtual void Fail(const Generation& generation, const ApiError& error, std::string& sse) = 0;

  // Of a request without "stream": the reply's body, once all choices have ended.
  virtual std::string ReplyJson(const Generation& generation) = 0;

  // An error about the request that it was translated to, in the names of the client's body. Any thread.
  virtual Status Restate(const Status& status) const { return status; }
};

// A request of another API in the terms of ours.
struct TranslatedRequest {
  Json body;  // of `endpoint`; has only fields that it knows
  ApiEndpoint endpoint = ApiEndpoint::kChat;
  const char* id_prefix = nullptr;          // of the reply's id; null: the endpoint's
  std::vector<std::string> ignored_fields;  // of the client's body
  std::unique_ptr<ReplyWriter> writer;      // never null
};

// "data: JSON\n\n", with an "event: NAME\n" before it where there is a name. Neither holds a newline.
void AppendSseEvent(std::string& sse, std::string_view name, std::string_view json);

}  // namespace fd
