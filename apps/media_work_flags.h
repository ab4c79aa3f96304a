// How the media of requests are prepared: options, limits of videos, threads, memory, cache.
#pragma once

#include "base/json.h"
#include "flag_set.h"
#include "server/multimodal/media_loader.h"

namespace fd {

struct MediaWorkFlags {
  JsonObject mm_processor_kwargs;  // as given; its keys are checked against the model when that is loaded
  VideoLimits video_limits;
  MediaLoaderOptions loader{.prepare_threads = 0};  // 0: by the number of cores
};

// In groups of their own. For a model without pictures they change nothing.
void AddMediaWorkFlags(FlagSet& flags, MediaWorkFlags* values);

// loader with its threads filled in.
MediaLoaderOptions LoaderOptions(const MediaWorkFlags& flags);

}  // namespace fd
