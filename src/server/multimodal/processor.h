// Prompt pieces and media -> token ids, positions and media items: everything of a GenerateRequest that
// depends on pictures and videos. Pure functions; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/plan/request.h"
#include "server/chat/chat_template.h"
#include "server/multimodal/image.h"
#include "server/multimodal/video/sampling.h"
#include "server/multimodal/video/video_reader.h"
#include "server/text/tokenizer.h"

namespace fd {

enum class MediaKind : uint8_t { kImage, kVideo };

// How one request may have its media prepared: the server's own values, or what a request put inside them.
struct MediaOptions {
  int64_t image_min_pixels = 56 * 56;
  int64_t image_max_pixels = 28 * 28 * 6177;
  // Per frame.
  int64_t video_min_pixels = 28 * 28 * 299;
  int64_t video_max_pixels = 28 * 28 * 1196;
  VideoSampling sampling;
};

// From preprocessor_config.json, processor_config.json and video_preprocessor_config.json of the checkpoint;
// flags are laid over it by the caller.
struct MediaConfig : MediaOptions {
  int64_t patch_size = 14;
  int64_t merge_size = 2;
  bool apply_exif = true;
  bool draw_on_frames = true;  // the time, in the corner of each frame of a video
  std::string font_path;       // of that time; the file may be missing until a video comes
  ImageLimits limits;
  VideoLimits video_limits;
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

// Patches of the largest picture or pair of frames that these limits let through.
int64_t MaxItemPatches(const MediaConfig& config);

// The size that a picture (or a frame of a pair: frames = 2) is resized to under these limits: SmartResize,
// and an error where rounding an extreme shape would lead beyond MaxItemPatches.
StatusOr<ImageSize> FittedSize(ImageSize size, int64_t frames, const MediaConfig& config, int64_t min_pixels,
                               int64_t max_pixels);
// Tokens of a picture or of a pair of frames of that fitted size.
int64_t TokensOf(ImageSize fitted, const MediaConfig& config);

// Decodes, resizes and cuts one picture; first_token is not yet set. Errors are user errors and name the
// picture's problem.
StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config,
                                                   int64_t min_pixels, int64_t max_pixels);
StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config);

// A whole video: its pairs of frames, each an item of the encoder and of its cache.
struct PreparedVideo {
  int32_t grid_t = 0, grid_h = 0, grid_w = 0;  // in patches; grid_t: frames, even
  std::vector<std::shared_ptr<const MediaItem>> pairs;
  int64_t num_tokens() const { return pairs.empty() ? 0 : std::ssize(pairs) * pairs[0]->num_tokens; }
};

// Frames, one after another and of one size, already sampled and drawn -> a PreparedVideo. Holds the rows
// alone.
class VideoBuilder {
 public:
  VideoBuilder(const MediaConfig& config, int64_t min_pixels, int64_t max_pixels)
      : config_(config), min_pixels_(min_pixels), max_pixels_(max_pixels) {}
  Status Add(const RgbImage& frame);
  // The last frame of an odd count is doubled. An error without frames.
  StatusOr<PreparedVideo> Finish();

 private:
  void ClosePair(const uint8_t* second_frame_rows);
  const MediaConfig& config_;
  const int64_t min_pixels_, max_pixels_;
  ImageSize frame_size_;
  ImageSize fitted_;
  std::vector<uint8_t> rows_;  // of the pair that is being filled
  PreparedVideo video_;
};

struct ExpandedPrompt {
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;  // [3, n]; empty without media
  int64_t position_delta = 0;
  std::vector<uint8_t> vision_expert;  // [n]; empty without media. Start and end tokens of media count as
                                       // vision, as in transformers
  std::vector<uint8_t> media_type;     // [n]: 0 text, 1 image patch, 2 video patch; empty without media
  std::vector<std::shared_ptr<const MediaItem>> media;  // by first_token; copies of the given items
  int64_t image_tokens = 0;
  int64_t video_tokens = 0;
};

// A prompt whose text is tokenised and whose media may still be on their way.
struct SectionedPrompt {
  struct Section {
    std::vector<int32_t> token_ids;
    std::optional<MediaKind> media;  // what stands after the text; nothing only in the last section
  };
  std::vector<Section> sections;
  int64_t text_tokens = 0;
};
// Cuts template-made pieces at the placeholders (<|image@placeholder|> or <|IMAGE_PLACEHOLDER|>, and the
// video ones). An error if the counts of placeholders differ from those that the request brings.
StatusOr<SectionedPrompt> SectionPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                        const MediaConfig& config, size_t num_images, size_t num_videos);
// Puts as many ids as each item has tokens into the places, in order of appearance. Positions follow
// ernie45-architecture 4.2: after a run of patches, a whole video being one run, the next position is the
// largest of its three coordinates + 1. The counts are those of SectionPrompt.
ExpandedPrompt FillPrompt(const SectionedPrompt& prompt, const MediaConfig& config,
                          const std::vector<std::shared_ptr<const MediaItem>>& images,
                          const std::vector<PreparedVideo>& videos);

// Both at once, where the media are at hand.
StatusOr<ExpandedPrompt> ExpandPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                      const MediaConfig& config,
                                      const std::vector<std::shared_ptr<const MediaItem>>& images,
                                      const std::vector<PreparedVideo>& videos);

}  // namespace fd
