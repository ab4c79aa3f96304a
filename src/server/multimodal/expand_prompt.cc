#include <algorithm>
#include <array>

#include "base/strings.h"
#include "server/multimodal/processor.h"

namespace fd {
namespace {

struct Placeholder {
  std::string_view text;
  MediaKind kind;
};
constexpr std::array<Placeholder, 4> kPlaceholders = {{{"<|image@placeholder|>", MediaKind::kImage},
                                                       {"<|IMAGE_PLACEHOLDER|>", MediaKind::kImage},
                                                       {"<|video@placeholder|>", MediaKind::kVideo},
                                                       {"<|VIDEO_PLACEHOLDER|>", MediaKind::kVideo}}};

// The text between two placeholders, then the placeholder that ends it (none in the last section).
struct TextSection {
  std::vector<TextSpan> spans;
  const Placeholder* placeholder = nullptr;
};

std::vector<TextSection> CutAtPlaceholders(const std::vector<PromptPiece>& pieces) {
  std::vector<TextSection> sections(1);
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
Status CheckCounts(const std::vector<TextSection>& sections, MediaKind kind, size_t items,
                   int32_t placeholder_id) {
  const char* name = kind == MediaKind::kImage ? "picture" : "video";
  size_t placeholders = 0;
  for (const TextSection& s : sections)
    placeholders += s.placeholder != nullptr && s.placeholder->kind == kind;
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

// The patches of one picture or one whole video: consecutive tokens.
struct PatchRun {
  int64_t first_token, times, rows, columns;
};

void AppendItem(MediaKind kind, const MediaItem& item, const MediaConfig& config, ExpandedPrompt* prompt) {
  const bool image = kind == MediaKind::kImage;
  const int64_t merged = item.grid_h / config.merge_size * (item.grid_w / config.merge_size);
  FD_CHECK(item.num_tokens == merged && merged > 0 && item.grid_t == (image ? 1 : 2), item.grid_t);
  // first_token belongs to one place in one prompt; the pixels stay shared.
  auto placed = std::make_shared<MediaItem>(item);
  placed->first_token = static_cast<int64_t>(prompt->token_ids.size());
  prompt->token_ids.insert(prompt->token_ids.end(), static_cast<size_t>(item.num_tokens),
                           image ? config.image_placeholder_id : config.video_placeholder_id);
  prompt->media_type.resize(prompt->token_ids.size(), image ? 1 : 2);
  (image ? prompt->image_tokens : prompt->video_tokens) += item.num_tokens;
  prompt->media.push_back(std::move(placed));
}

// t, h and w rows of [3, n]; returns the first position after the prompt.
int64_t FillPositions(const std::vector<PatchRun>& runs, ExpandedPrompt* prompt) {
  const int64_t n = static_cast<int64_t>(prompt->token_ids.size());
  prompt->positions.resize(static_cast<size_t>(3 * n));
  int32_t *t = prompt->positions.data(), *h = t + n, *w = h + n;
  int64_t cursor = 0, at = 0;
  auto fill_text = [&](int64_t end) {
    for (; at < end; ++at, ++cursor) t[at] = h[at] = w[at] = static_cast<int32_t>(cursor);
  };
  for (const PatchRun& run : runs) {
    fill_text(run.first_token);
    const int64_t tokens = run.times * run.rows * run.columns;
    for (int64_t i = 0; i < tokens; ++i, ++at) {
      t[at] = static_cast<int32_t>(cursor + i / (run.rows * run.columns));
      h[at] = static_cast<int32_t>(cursor + i / run.columns % run.rows);
      w[at] = static_cast<int32_t>(cursor + i % run.columns);
    }
    cursor += std::max({run.times, run.rows, run.columns});
  }
  fill_text(n);
  return cursor;
}

}  // namespace

StatusOr<SectionedPrompt> SectionPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                        const MediaConfig& config, size_t num_images, size_t num_videos) {
  const std::vector<TextSection> sections = CutAtPlaceholders(pieces);
  FD_RETURN_IF_ERROR(CheckCounts(sections, MediaKind::kImage, num_images, config.image_placeholder_id));
  FD_RETURN_IF_ERROR(CheckCounts(sections, MediaKind::kVideo, num_videos, config.video_placeholder_id));
  SectionedPrompt prompt;
  for (const TextSection& section : sections) {
    prompt.sections.push_back({tokenizer.EncodeSpans(section.spans), {}});
    if (section.placeholder != nullptr) prompt.sections.back().media = section.placeholder->kind;
    prompt.text_tokens += std::ssize(prompt.sections.back().token_ids);
  }
  return prompt;
}

ExpandedPrompt FillPrompt(const SectionedPrompt& sectioned, const MediaConfig& config,
                          const std::vector<std::shared_ptr<const MediaItem>>& images,
                          const std::vector<PreparedVideo>& videos) {
  ExpandedPrompt prompt;
  std::vector<PatchRun> runs;
  size_t next_image = 0, next_video = 0;
  const auto add_run = [&](int64_t times, int64_t grid_h, int64_t grid_w) {
    runs.push_back(
        {std::ssize(prompt.token_ids), times, grid_h / config.merge_size, grid_w / config.merge_size});
  };
  for (const SectionedPrompt::Section& section : sectioned.sections) {
    prompt.token_ids.insert(prompt.token_ids.end(), section.token_ids.begin(), section.token_ids.end());
    prompt.media_type.resize(prompt.token_ids.size(), 0);
    if (section.media == MediaKind::kImage) {
      FD_CHECK(next_image < images.size() && images[next_image] != nullptr);
      const MediaItem& item = *images[next_image++];
      add_run(1, item.grid_h, item.grid_w);
      AppendItem(MediaKind::kImage, item, config, &prompt);
    } else if (section.media == MediaKind::kVideo) {
      FD_CHECK(next_video < videos.size() && !videos[next_video].pairs.empty());
      const PreparedVideo& video = videos[next_video++];
      FD_CHECK_EQ(video.grid_t, 2 * std::ssize(video.pairs));
      add_run(std::ssize(video.pairs), video.grid_h, video.grid_w);
      for (const auto& pair : video.pairs) AppendItem(MediaKind::kVideo, *pair, config, &prompt);
    }
  }
  FD_CHECK(next_image == images.size() && next_video == videos.size());
  if (prompt.media.empty()) {
    prompt.media_type.clear();
    return prompt;
  }
  prompt.position_delta = FillPositions(runs, &prompt) - std::ssize(prompt.token_ids);
  prompt.vision_expert.resize(prompt.token_ids.size());
  for (size_t i = 0; i < prompt.token_ids.size(); ++i) {
    int32_t id = prompt.token_ids[i];
    prompt.vision_expert[i] = prompt.media_type[i] != 0 || id == config.image_start_id ||
                              id == config.image_end_id || id == config.video_start_id ||
                              id == config.video_end_id;
  }
  return prompt;
}

StatusOr<ExpandedPrompt> ExpandPrompt(const std::vector<PromptPiece>& pieces, const Tokenizer& tokenizer,
                                      const MediaConfig& config,
                                      const std::vector<std::shared_ptr<const MediaItem>>& images,
                                      const std::vector<PreparedVideo>& videos) {
  FD_ASSIGN_OR_RETURN(const SectionedPrompt prompt,
                      SectionPrompt(pieces, tokenizer, config, images.size(), videos.size()));
  return FillPrompt(prompt, config, images, videos);
}

}  // namespace fd
