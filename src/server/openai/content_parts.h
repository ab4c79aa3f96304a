// The content parts of messages: text, pictures, videos, in OpenAI's, FastDeploy's and vLLM's spellings.
// Internal to this folder. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "server/multimodal/media_loader.h"
#include "server/openai/service.h"

namespace fd {

// Pictures and videos of all messages against --limit-mm-per-prompt, by the parts' types alone: before
// anything is read, fetched or decoded. What is no message or no part is left to the other checks.
Status CheckMediaCounts(const Service& service, const JsonArray& messages);

// Checks one part and gives it the type that templates know (text, image_url, video_url). A picture or video
// goes to `media` and its URL leaves the part, so that megabytes of base64 never reach the template.
// options: the request's own.
Status ReadContentPart(const Service& service, const MediaOptions& options, Json& part,
                       const std::string& where, std::vector<MediaSpec>* media);

}  // namespace fd
