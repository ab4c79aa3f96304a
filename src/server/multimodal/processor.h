// Prompt pieces and media -> token ids, positions and media items: everything of a GenerateRequest that
// depends on pictures.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/plan/request.h"
#include "server/chat/chat_template.h"
#include "server/multimodal/image.h"
#include "server/text/tokenizer.h"

namespace fd {

// From preprocessor_config.json, processor_config.json and video_preprocessor_config.json of the checkpoint;
// flags are laid over it by the caller.
struct MediaConfig {
  int64_t patch_size = 14;
  int64_t merge_size = 2;
  int64_t image_min_pixels = 56 * 56;
  int64_t image_max_pixels = 28 * 28 * 6177;
  // Per frame.
  int64_t video_min_pixels = 28 * 28 * 299;
  int64_t video_max_pixels = 28 * 28 * 1196;
  bool apply_exif = true;
  ImageLimits limits;
  // Ids of the tokens that the prompt uses; -1 when the model has none.
  int32_t image_placeholder_id = -1;
  int32_t image_start_id = -1;
  int32_t image_end_id = -1;
  int32_t video_placeholder_id = -1;
  int32_t video_start_id = -1;
  int32_t video_end_id = -1;
};
// A folder without any of the files, or a vocabulary without <|IMAGE_PLACEHOLDER|>, is a model without media:
// all ids stay -1. A file that asks for another preprocessing than ours (resampling, mean, scale) is an error
// that names file, key and value.
StatusOr<MediaConfig> LoadMediaConfig(const std::string& model_dir, const Tokenizer& tokenizer);

// Decodes, resizes and cuts one picture; first_token is not yet set. Errors are user errors and name the
// picture's problem.
StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config);
// A video of already sampled and drawn frames of one size (even count; the caller doubles the last of an odd
// number): for golden cases now, for the video path later.
StatusOr<std::shared_ptr<MediaItem>> MakeVideoItem(const std::vector<RgbImage>& frames,
                                                   const MediaConfig& config, int64_t min_pixels,
                                                   int64_t max_pixels);

struct ExpandedPrompt {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;  // [3, n]; empty without media
  int64_t position_delta = 0;
  std::vector<uint8_t> vision_expert;  // [n]; empty without media. Start and end tokens of media count as
                                       // vision, as in transformers
  std::vector<uint8_t> media_type;     // [n]: 0 text, 1 image patch, 2 video patch; empty without media
  std::vector<std::shared_ptr<const MediaItem>> media;
};
// Replaces the placeholders (<|image@placeholder|> or <|IMAGE_PLACEHOLDER|>, and the video ones) of
// template-made pieces by as many ids as each item has tokens, in order of appearance, and sets first_token
// of the items. An item that stands twice in a list is copied. Positions follow ernie45-architecture 4.2:
// after a run of patches the next position is the largest of its three coordinates + 1. An error if the
// counts of placeholders and items differ.
StatusOr<ExpandedPrompt> ExpandPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                      const MediaConfig& config,
                                      std::vector<std::shared_ptr<MediaItem>> images,
                                      std::vector<std::shared_ptr<MediaItem>> videos);

}  // namespace fd
