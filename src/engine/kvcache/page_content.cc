#include "engine/kvcache/page_content.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/check.h"

namespace fd {
namespace {

template <typename T>
void AppendBytes(std::string& out, const T* values, size_t count) {
  static_assert(std::has_unique_object_representations_v<T>);
  const size_t at = out.size();
  out.resize(at + count * sizeof(T));
  if (count > 0) std::memcpy(out.data() + at, values, count * sizeof(T));
}

PageContent::Place TextPlace(int32_t first_position, size_t index) {
  const int32_t at = first_position + static_cast<int32_t>(index);
  return {.t = at, .h = at, .w = at, .vision_expert = 0, .media = {}};
}

PageContent::Place PlaceIn(const PageContent& content, size_t index) {
  return content.places.empty() ? TextPlace(content.first_position, index) : content.places[index];
}

PageContent::Place PlaceOf(const GenerateRequest& request, int64_t prompt_tokens, int64_t index) {
  PageContent::Place place;
  if (index >= prompt_tokens) {
    place.t = place.h = place.w = static_cast<int32_t>(index + request.position_delta);
    return place;
  }
  if (request.positions.empty()) {
    place.t = place.h = place.w = static_cast<int32_t>(index);
  } else {
    place.t = request.positions[static_cast<size_t>(index)];
    place.h = request.positions[static_cast<size_t>(prompt_tokens + index)];
    place.w = request.positions[static_cast<size_t>(2 * prompt_tokens + index)];
  }
  if (!request.vision_expert.empty()) place.vision_expert = request.vision_expert[static_cast<size_t>(index)];
  return place;
}

}  // namespace

PageContent ContentOf(const GenerateRequest& request, const std::vector<int32_t>& tokens,
                      int64_t prompt_tokens, int64_t begin, int64_t count) {
  FD_CHECK(count >= 1 && count <= kKvPageTokens && begin + count <= std::ssize(tokens), "not a page");
  PageContent content;
  content.token_ids.assign(tokens.begin() + begin, tokens.begin() + begin + count);
  if (request.positions.empty() && request.media.empty() && request.vision_expert.empty() &&
      request.position_delta == 0) {
    content.first_position = static_cast<int32_t>(begin);
    return content;
  }
  for (int64_t i = 0; i < count; ++i) content.places.push_back(PlaceOf(request, prompt_tokens, begin + i));
  auto item = std::upper_bound(request.media.begin(), request.media.end(), begin,
                               [](int64_t at, const auto& m) { return at < m->first_token + m->num_tokens; });
  for (; item != request.media.end() && (*item)->first_token < begin + count; ++item) {
    const int64_t first = (*item)->first_token;
    for (int64_t n = std::max(first, begin); n < std::min(first + (*item)->num_tokens, begin + count); ++n) {
      Hash128 row = (*item)->content_hash;
      row.low += static_cast<uint64_t>(n - first);
      content.places[static_cast<size_t>(n - begin)].media = row;
    }
  }
  const int32_t first_position = content.places.front().t;
  bool is_text = true;
  for (size_t i = 0; i < content.places.size(); ++i)
    is_text &= content.places[i] == TextPlace(first_position, i);
  if (is_text) {
    content.first_position = first_position;
    content.places.clear();
  }
  return content;
}

Hash128 ChainRoot(std::string_view salt) { return KeyedHash(std::string("prefix ").append(salt)); }

Hash128 ChainHash(const Hash128& before, const PageContent& content) {
  std::string bytes;
  AppendBytes(bytes, &before, 1);
  const int32_t head[] = {static_cast<int32_t>(content.token_ids.size()), content.first_position,
                          static_cast<int32_t>(content.places.size())};
  AppendBytes(bytes, head, 3);
  AppendBytes(bytes, content.token_ids.data(), content.token_ids.size());
  AppendBytes(bytes, content.places.data(), content.places.size());
  return KeyedHash(bytes);
}

int64_t EqualTokens(const PageContent& a, const PageContent& b) {
  const size_t most = std::min(a.token_ids.size(), b.token_ids.size());
  size_t n = 0;
  while (n < most && a.token_ids[n] == b.token_ids[n] && PlaceIn(a, n) == PlaceIn(b, n)) ++n;
  return static_cast<int64_t>(n);
}

}  // namespace fd
