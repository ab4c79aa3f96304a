#include "base/strings.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

// Equal only for equal grid and pixels, and not to be found by trial: both rounds use the process's key.
Hash128 ContentHash(const MediaItem& item) {
  Hash128 pixels = KeyedHash({reinterpret_cast<const char*>(item.patch_rows.data()), item.patch_rows.size()});
  const uint64_t words[] = {static_cast<uint64_t>(item.grid_t), static_cast<uint64_t>(item.grid_h),
                            static_cast<uint64_t>(item.grid_w), pixels.low, pixels.high};
  return KeyedHash({reinterpret_cast<const char*>(words), sizeof(words)});
}

StatusOr<std::vector<uint8_t>> FrameRows(const RgbImage& frame, const MediaConfig& config, int64_t min_pixels,
                                         int64_t max_pixels, MediaItem* item) {
  FD_ASSIGN_OR_RETURN(
      ImageSize size,
      SmartResize(frame.height, frame.width, config.patch_size * config.merge_size, min_pixels, max_pixels));
  item->grid_h = static_cast<int32_t>(size.height / config.patch_size);
  item->grid_w = static_cast<int32_t>(size.width / config.patch_size);
  return ResizedPatchRows(frame, size, config.patch_size, config.merge_size);
}

int64_t MergedTokens(const MediaItem& item, const MediaConfig& config) {
  return item.grid_h / config.merge_size * (item.grid_w / config.merge_size);
}

}  // namespace

StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config) {
  const PatchRule rule{config.patch_size, config.merge_size, config.image_min_pixels,
                       config.image_max_pixels};
  FD_ASSIGN_OR_RETURN(PatchImage image, DecodePatchRows(encoded, config.limits, config.apply_exif, rule));
  auto item = std::make_shared<MediaItem>();
  item->grid_h = static_cast<int32_t>(image.size.height / config.patch_size);
  item->grid_w = static_cast<int32_t>(image.size.width / config.patch_size);
  item->patch_rows = std::move(image.rows);
  item->num_tokens = MergedTokens(*item, config);
  item->content_hash = ContentHash(*item);
  return item;
}

StatusOr<std::shared_ptr<MediaItem>> MakeVideoItem(const std::vector<RgbImage>& frames,
                                                   const MediaConfig& config, int64_t min_pixels,
                                                   int64_t max_pixels) {
  if (frames.empty() || frames.size() % 2 != 0) {
    return InvalidArgument(StrCat("a video of ", frames.size(),
                                  " frames; expected an even number above 0 (the last frame is doubled)"));
  }
  auto item = std::make_shared<MediaItem>();
  item->grid_t = static_cast<int32_t>(frames.size());
  for (const RgbImage& frame : frames) {
    if (frame.height != frames[0].height || frame.width != frames[0].width) {
      return InvalidArgument(StrCat("the frames of a video differ in size: ", frames[0].width, " x ",
                                    frames[0].height, " and ", frame.width, " x ", frame.height));
    }
    FD_ASSIGN_OR_RETURN(std::vector<uint8_t> rows,
                        FrameRows(frame, config, min_pixels, max_pixels, item.get()));
    item->patch_rows.insert(item->patch_rows.end(), rows.begin(), rows.end());
  }
  item->num_tokens = item->grid_t / 2 * MergedTokens(*item, config);
  item->content_hash = ContentHash(*item);
  return item;
}

}  // namespace fd
