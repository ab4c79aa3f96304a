// Media that were prepared before, by content and by the client's own name for them. Any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "server/multimodal/processor.h"

namespace fd {

// One picture or one whole video, ready for a prompt. Immutable.
struct PreparedMedia {
  MediaKind kind = MediaKind::kImage;
  std::shared_ptr<const MediaItem> image;  // of a picture
  PreparedVideo video;                     // of a video
  int64_t num_tokens() const { return image != nullptr ? image->num_tokens : video.num_tokens(); }
  int64_t num_bytes() const;
};

// What identifies prepared pixels: the encoded bytes and every option that changes them. Keyed, so that no
// client can make two pictures meet.
Hash128 MediaKey(MediaKind kind, std::string_view encoded, const MediaOptions& options);
// A client's uuid. scope: whose it is (an API key, or empty for everyone without one).
Hash128 UuidKey(MediaKind kind, std::string_view scope, std::string_view uuid);

// Least recently used goes first. An item larger than the budget is not kept.
class MediaCache {
 public:
  explicit MediaCache(int64_t max_bytes) : max_bytes_(max_bytes) {}
  bool enabled() const { return max_bytes_ > 0; }
  // Null when it is not kept.
  std::shared_ptr<const PreparedMedia> Find(const Hash128& key);
  std::shared_ptr<const PreparedMedia> FindUuid(const Hash128& uuid_key);
  // uuid_key: null, or a name under which the item can be found too; it replaces what had that name.
  void Add(const Hash128& key, std::shared_ptr<const PreparedMedia> media, const Hash128* uuid_key);
  int64_t num_bytes() const;

 private:
  struct Entry {
    Hash128 key;
    std::shared_ptr<const PreparedMedia> media;
    int64_t bytes = 0;               // with its names
    std::vector<Hash128> uuid_keys;  // some may have gone to another entry since
  };
  using Position = std::list<Entry>::iterator;
  std::shared_ptr<const PreparedMedia> Touch(Position entry);
  void Shrink();

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<Hash128, Position, Hash128Hasher> by_key_;
  std::unordered_map<Hash128, Hash128, Hash128Hasher> by_uuid_;  // -> key
};

}  // namespace fd
