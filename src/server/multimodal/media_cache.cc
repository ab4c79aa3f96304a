#include "server/multimodal/media_cache.h"

#include <algorithm>
#include <bit>
#include <string>

namespace fd {
namespace {

// A name costs memory too: a client may send one picture under many.
constexpr int64_t kNameBytes = 128;

}  // namespace

int64_t PreparedMedia::num_bytes() const {
  int64_t bytes = image != nullptr ? static_cast<int64_t>(image->patch_rows.size()) : 0;
  for (const auto& pair : video.pairs) bytes += static_cast<int64_t>(pair->patch_rows.size());
  return bytes;
}

Hash128 MediaKey(MediaKind kind, std::string_view encoded, const MediaOptions& o) {
  const Hash128 content = KeyedHash(encoded);
  std::vector<uint64_t> words = {static_cast<uint64_t>(kind), content.low, content.high};
  if (kind == MediaKind::kImage) {
    words.push_back(static_cast<uint64_t>(o.image_min_pixels));
    words.push_back(static_cast<uint64_t>(o.image_max_pixels));
  } else {
    const VideoSampling& s = o.sampling;
    for (int64_t word : {o.video_min_pixels, o.video_max_pixels, s.min_frames, s.max_frames, s.target_frames,
                         static_cast<int64_t>(s.frames_sample), static_cast<int64_t>(s.seed)}) {
      words.push_back(static_cast<uint64_t>(word));
    }
    words.push_back(std::bit_cast<uint64_t>(s.fps));
  }
  return KeyedHash({reinterpret_cast<const char*>(words.data()), words.size() * sizeof(words[0])});
}

Hash128 UuidKey(MediaKind kind, std::string_view scope, std::string_view uuid) {
  const Hash128 whose = KeyedHash(scope), which = KeyedHash(uuid);
  const uint64_t words[] = {static_cast<uint64_t>(kind), whose.low, whose.high, which.low, which.high};
  return KeyedHash({reinterpret_cast<const char*>(words), sizeof(words)});
}

std::shared_ptr<const PreparedMedia> MediaCache::Touch(Position entry) {
  entries_.splice(entries_.begin(), entries_, entry);
  return entry->media;
}

std::shared_ptr<const PreparedMedia> MediaCache::Find(const Hash128& key) {
  std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : Touch(found->second);
}

std::shared_ptr<const PreparedMedia> MediaCache::FindUuid(const Hash128& uuid_key) {
  std::lock_guard lock(mutex_);
  const auto name = by_uuid_.find(uuid_key);
  return name == by_uuid_.end() ? nullptr : Touch(by_key_.at(name->second));
}

void MediaCache::Add(const Hash128& key, std::shared_ptr<const PreparedMedia> media,
                     const Hash128* uuid_key) {
  if (!enabled() || media->num_bytes() > max_bytes_) return;
  std::lock_guard lock(mutex_);
  auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    const int64_t bytes = media->num_bytes() + kNameBytes;
    entries_.push_front({key, std::move(media), bytes, {}});
    found = by_key_.emplace(key, entries_.begin()).first;
    bytes_ += bytes;
  }
  Touch(found->second);
  Entry& entry = *found->second;
  if (uuid_key != nullptr) {
    by_uuid_[*uuid_key] = key;
    if (std::find(entry.uuid_keys.begin(), entry.uuid_keys.end(), *uuid_key) == entry.uuid_keys.end()) {
      entry.uuid_keys.push_back(*uuid_key);
      entry.bytes += kNameBytes;
      bytes_ += kNameBytes;
    }
  }
  Shrink();
}

void MediaCache::Shrink() {
  while (bytes_ > max_bytes_ && !entries_.empty()) {
    const Entry& last = entries_.back();
    for (const Hash128& name : last.uuid_keys) {
      const auto found = by_uuid_.find(name);
      if (found != by_uuid_.end() && found->second == last.key) by_uuid_.erase(found);
    }
    bytes_ -= last.bytes;
    by_key_.erase(last.key);
    entries_.pop_back();
  }
}

int64_t MediaCache::num_bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace fd
