#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

// transformers refuses pictures whose sides differ by more than this.
constexpr double kMaxSideRatio = 200;

// Equal only for equal grid and pixels, and not to be found by trial: both rounds use the process's key.
Hash128 ContentHash(const MediaItem& item) {
  Hash128 pixels = KeyedHash({reinterpret_cast<const char*>(item.patch_rows.data()), item.patch_rows.size()});
  const uint64_t words[] = {static_cast<uint64_t>(item.grid_t), static_cast<uint64_t>(item.grid_h),
                            static_cast<uint64_t>(item.grid_w), pixels.low, pixels.high};
  return KeyedHash({reinterpret_cast<const char*>(words), sizeof(words)});
}

int64_t PatchesOf(ImageSize size, const MediaConfig& config) {
  return size.height / config.patch_size * (size.width / config.patch_size);
}

std::vector<uint8_t> RowsOf(const RgbImage& image, ImageSize fitted, const MediaConfig& config) {
  return ResizedPatchRows(image, fitted, config.patch_size, config.merge_size);
}

std::shared_ptr<MediaItem> ItemOf(std::vector<uint8_t> rows, int32_t frames, ImageSize fitted,
                                  const MediaConfig& config) {
  auto item = std::make_shared<MediaItem>();
  item->grid_t = frames;
  item->grid_h = static_cast<int32_t>(fitted.height / config.patch_size);
  item->grid_w = static_cast<int32_t>(fitted.width / config.patch_size);
  item->patch_rows = std::move(rows);
  item->num_tokens = TokensOf(fitted, config);
  item->content_hash = ContentHash(*item);
  return item;
}

}  // namespace

int64_t MaxItemPatches(const MediaConfig& config) {
  // A side is at least one factor long, so a narrow picture may stay larger than a small limit asks for.
  const auto factor = static_cast<double>(config.patch_size * config.merge_size);
  const auto largest = [&](int64_t max_pixels) {
    const double narrow = factor * std::ceil(std::sqrt(kMaxSideRatio * static_cast<double>(max_pixels)));
    return std::max(max_pixels, static_cast<int64_t>(narrow));
  };
  const int64_t pixels = std::max(largest(config.image_max_pixels), 2 * largest(config.video_max_pixels));
  return pixels / (config.patch_size * config.patch_size);
}

StatusOr<ImageSize> FittedSize(ImageSize size, int64_t frames, const MediaConfig& config, int64_t min_pixels,
                               int64_t max_pixels) {
  FD_ASSIGN_OR_RETURN(
      const ImageSize fitted,
      SmartResize(size.height, size.width, config.patch_size * config.merge_size, min_pixels, max_pixels));
  if (frames * PatchesOf(fitted, config) > MaxItemPatches(config)) {
    return InvalidArgument(StrCat(size.width, " x ", size.height, " pixels become ", fitted.width, " x ",
                                  fitted.height, " to have the smallest area of ", min_pixels,
                                  "; this server takes at most ",
                                  MaxItemPatches(config) * config.patch_size * config.patch_size / frames,
                                  " pixels (--mm-processor-kwargs); lower the smallest area"));
  }
  return fitted;
}

int64_t TokensOf(ImageSize fitted, const MediaConfig& config) {
  return PatchesOf(fitted, config) / (config.merge_size * config.merge_size);
}

StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config,
                                                   int64_t min_pixels, int64_t max_pixels) {
  FD_ASSIGN_OR_RETURN(const ImageSize size, ReadImageSize(encoded, config.limits, config.apply_exif));
  FD_RETURN_IF_ERROR(FittedSize(size, 1, config, min_pixels, max_pixels).status());
  const PatchRule rule{config.patch_size, config.merge_size, min_pixels, max_pixels};
  FD_ASSIGN_OR_RETURN(PatchImage image, DecodePatchRows(encoded, config.limits, config.apply_exif, rule));
  return ItemOf(std::move(image.rows), 1, image.size, config);
}

StatusOr<std::shared_ptr<MediaItem>> MakeImageItem(std::string_view encoded, const MediaConfig& config) {
  return MakeImageItem(encoded, config, config.image_min_pixels, config.image_max_pixels);
}

Status VideoBuilder::Add(const RgbImage& frame) {
  if (frame_size_.height == 0) {
    frame_size_ = {frame.height, frame.width};
    FD_ASSIGN_OR_RETURN(fitted_, FittedSize(frame_size_, 2, config_, min_pixels_, max_pixels_));
    video_.grid_h = static_cast<int32_t>(fitted_.height / config_.patch_size);
    video_.grid_w = static_cast<int32_t>(fitted_.width / config_.patch_size);
  }
  if (frame.height != frame_size_.height || frame.width != frame_size_.width) {
    return InvalidArgument(StrCat("the frames of a video differ in size: ", frame_size_.width, " x ",
                                  frame_size_.height, " and ", frame.width, " x ", frame.height));
  }
  std::vector<uint8_t> rows = RowsOf(frame, fitted_, config_);
  if (rows_.empty()) {
    rows_ = std::move(rows);
  } else {
    ClosePair(rows.data());
  }
  return OkStatus();
}

void VideoBuilder::ClosePair(const uint8_t* second_frame_rows) {
  const size_t frame_bytes = rows_.size();
  std::vector<uint8_t> pair(2 * frame_bytes);
  std::copy_n(rows_.data(), frame_bytes, pair.data());
  std::copy_n(second_frame_rows, frame_bytes, pair.data() + frame_bytes);
  rows_.clear();
  video_.pairs.push_back(ItemOf(std::move(pair), 2, fitted_, config_));
  video_.grid_t += 2;
}

StatusOr<PreparedVideo> VideoBuilder::Finish() {
  if (!rows_.empty()) {
    const std::vector<uint8_t> last = rows_;
    ClosePair(last.data());
  }
  if (video_.pairs.empty()) return InvalidArgument("the video has no frames");
  return std::move(video_);
}

}  // namespace fd
