// OpenAI's response object and the events of its stream. Internal to this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/openai/reply_writer.h"
#include "server/responses/input_items.h"

namespace fd {

// echo: the members of the response object that repeat the request, as JSON: "\"temperature\":1,...".
std::unique_ptr<ReplyWriter> MakeResponsesWriter(std::string echo, std::vector<Place> places);

}  // namespace fd
