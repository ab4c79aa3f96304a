#include <algorithm>
#include <array>
#include <set>

#include "base/strings.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

enum class MediaKind : uint8_t { kImage = 1, kVideo = 2 };

struct Placeholder {
  std::string_view text;
  MediaKind kind;
};
constexpr std::array<Placeholder, 4> kPlaceholders = {{{"<|image@placeholder|>", MediaKind::kImage},
                                                       {"<|IMAGE_PLACEHOLDER|>", MediaKind::kImage},
                                                       {"<|video@placeholder|>", MediaKind::kVideo},
                                                       {"<|VIDEO_PLACEHOLDER|>", MediaKind::kVideo}}};

// The prompt between two placeholders: spans, then the placeholder that ends them (none in the last section).
struct Section {
  std::vector<TextSpan> spans;
  const Placeholder* placeholder = nullptr;
};

std::vector<Section> CutAtPlaceholders(const std::vector<PromptPiece>& pieces) {
  std::vector<Section> sections(1);
  for (const PromptPiece& piece : pieces) {
    std::string_view rest = piece.text;
    while (!piece.from_user) {  // what a user writes stays text
      size_t first = std::string_view::npos;
      const Placeholder* found = nullptr;
      for (size_t at = rest.find("<|"); at != std::string_view::npos && found == nullptr;
           at = rest.find("<|", at + 1)) {
        for (const Placeholder& p : kPlaceholders) {
          if (rest.substr(at).starts_with(p.text)) first = at, found = &p;
        }
      }
      if (found == nullptr) break;
      if (first > 0) sections.back().spans.push_back({rest.substr(0, first), true});
      sections.back().placeholder = found;
      sections.emplace_back();
      rest.remove_prefix(first + found->text.size());
    }
    if (!rest.empty()) sections.back().spans.push_back({rest, !piece.from_user});
  }
  return sections;
}

// Placeholders of one kind against what the request brings.
Status CheckCounts(const std::vector<Section>& sections, MediaKind kind, size_t items,
                   int32_t placeholder_id) {
  const char* name = kind == MediaKind::kImage ? "picture" : "video";
  size_t placeholders = 0;
  for (const Section& s : sections) placeholders += s.placeholder != nullptr && s.placeholder->kind == kind;
  if (items > 0 && placeholder_id < 0) {
    return InvalidArgument(
        StrCat("this model takes no ", name, "s: the request has ", items, ", the limit is 0"), "messages");
  }
  if (items == placeholders) return OkStatus();
  return InvalidArgument(
      StrCat("the chat template made room for ", placeholders, " ", name, placeholders == 1 ? "" : "s",
             " and the request has ", items, "; send each as a content part of a user message"),
      "messages");
}

void AppendMedia(MediaKind kind, std::shared_ptr<MediaItem> item, const MediaConfig& config,
                 ExpandedPrompt* prompt) {
  bool image = kind == MediaKind::kImage;
  int64_t merged = item->grid_h / config.merge_size * (item->grid_w / config.merge_size);
  FD_CHECK_EQ(item->num_tokens, (image ? 1 : item->grid_t / 2) * merged);
  FD_CHECK(item->num_tokens > 0 && (image ? item->grid_t == 1 : item->grid_t % 2 == 0), item->grid_t);
  item->first_token = static_cast<int64_t>(prompt->token_ids.size());
  prompt->token_ids.insert(prompt->token_ids.end(), static_cast<size_t>(item->num_tokens),
                           image ? config.image_placeholder_id : config.video_placeholder_id);
  prompt->media_type.resize(prompt->token_ids.size(), static_cast<uint8_t>(kind));
  prompt->media.push_back(std::move(item));
}

// t, h and w rows of [3, n]; returns the first position after the prompt.
int64_t FillPositions(const MediaConfig& config, ExpandedPrompt* prompt) {
  const int64_t n = static_cast<int64_t>(prompt->token_ids.size());
  prompt->positions.resize(static_cast<size_t>(3 * n));
  int32_t *t = prompt->positions.data(), *h = t + n, *w = h + n;
  int64_t cursor = 0, at = 0;
  auto fill_text = [&](int64_t end) {
    for (; at < end; ++at, ++cursor) t[at] = h[at] = w[at] = static_cast<int32_t>(cursor);
  };
  for (const auto& item : prompt->media) {
    fill_text(item->first_token);
    const int64_t rows = item->grid_h / config.merge_size, columns = item->grid_w / config.merge_size;
    const int64_t times = item->num_tokens / (rows * columns);
    for (int64_t i = 0; i < item->num_tokens; ++i, ++at) {
      t[at] = static_cast<int32_t>(cursor + i / (rows * columns));
      h[at] = static_cast<int32_t>(cursor + i / columns % rows);
      w[at] = static_cast<int32_t>(cursor + i % columns);
    }
    cursor += std::max({times, rows, columns});
  }
  fill_text(n);
  return cursor;
}

}  // namespace

StatusOr<ExpandedPrompt> ExpandPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                      const MediaConfig& config,
                                      std::vector<std::shared_ptr<MediaItem>> images,
                                      std::vector<std::shared_ptr<MediaItem>> videos) {
  std::vector<Section> sections = CutAtPlaceholders(pieces);
  FD_RETURN_IF_ERROR(CheckCounts(sections, MediaKind::kImage, images.size(), config.image_placeholder_id));
  FD_RETURN_IF_ERROR(CheckCounts(sections, MediaKind::kVideo, videos.size(), config.video_placeholder_id));

  ExpandedPrompt prompt;
  size_t next_image = 0, next_video = 0;
  std::set<const MediaItem*> used;
  for (const Section& section : sections) {
    std::vector<int32_t> ids = tokenizer.EncodeSpans(section.spans);
    prompt.token_ids.insert(prompt.token_ids.end(), ids.begin(), ids.end());
    prompt.media_type.resize(prompt.token_ids.size(), 0);
    if (section.placeholder == nullptr) continue;
    MediaKind kind = section.placeholder->kind;
    std::shared_ptr<MediaItem> item = kind == MediaKind::kImage ? images[next_image++] : videos[next_video++];
    FD_CHECK(item != nullptr);
    // first_token belongs to one place.
    if (!used.insert(item.get()).second) item = std::make_shared<MediaItem>(*item);
    AppendMedia(kind, std::move(item), config, &prompt);
  }
  if (prompt.media.empty()) {
    prompt.media_type.clear();
    return prompt;
  }
  prompt.position_delta = FillPositions(config, &prompt) - static_cast<int64_t>(prompt.token_ids.size());
  prompt.vision_expert.resize(prompt.token_ids.size());
  for (size_t i = 0; i < prompt.token_ids.size(); ++i) {
    int32_t id = prompt.token_ids[i];
    prompt.vision_expert[i] = prompt.media_type[i] != 0 || id == config.image_start_id ||
                              id == config.image_end_id || id == config.video_start_id ||
                              id == config.video_end_id;
  }
  return prompt;
}

}  // namespace fd
