#include "server/multimodal/media_cache.h"

#include <gtest/gtest.h>

#include <string>

#include "base/strings.h"

namespace fd {
namespace {

std::shared_ptr<const PreparedMedia> Picture(size_t bytes) {
  auto item = std::make_shared<MediaItem>();
  item->patch_rows = std::vector<uint8_t>(bytes);
  auto media = std::make_shared<PreparedMedia>();
  media->image = item;
  return media;
}

TEST(MediaKeyTest, SeesBytesKindAndWhatChangesPixels) {
  MediaOptions a, b;
  const Hash128 base = MediaKey(MediaKind::kImage, "bytes", a);
  EXPECT_EQ(base, MediaKey(MediaKind::kImage, "bytes", b));
  EXPECT_NE(base, MediaKey(MediaKind::kImage, "byteS", b));
  EXPECT_NE(base, MediaKey(MediaKind::kVideo, "bytes", b));
  b.sampling.fps = 3;  // of videos alone
  EXPECT_EQ(base, MediaKey(MediaKind::kImage, "bytes", b));
  EXPECT_NE(MediaKey(MediaKind::kVideo, "bytes", a), MediaKey(MediaKind::kVideo, "bytes", b));
  b.image_max_pixels = 1000;
  EXPECT_NE(base, MediaKey(MediaKind::kImage, "bytes", b));
}

TEST(MediaCacheTest, LeastRecentlyUsedGoesFirst) {
  MediaCache cache(4000);
  const auto key = [](int i) { return KeyedHash(StrCat("k", i)); };
  for (int i = 0; i < 3; ++i) cache.Add(key(i), Picture(1000), nullptr);
  EXPECT_NE(cache.Find(key(0)), nullptr);  // now the youngest
  cache.Add(key(3), Picture(1000), nullptr);
  EXPECT_EQ(cache.Find(key(1)), nullptr);
  EXPECT_NE(cache.Find(key(0)), nullptr);
  EXPECT_NE(cache.Find(key(2)), nullptr);
  EXPECT_LE(cache.num_bytes(), 4000);
  cache.Add(key(4), Picture(5000), nullptr);  // larger than all: not kept, and nothing goes for it
  EXPECT_EQ(cache.Find(key(4)), nullptr);
  EXPECT_NE(cache.Find(key(3)), nullptr);
}

TEST(MediaCacheTest, NamesBelongToTheirScopeAndGoWithTheItem) {
  MediaCache cache(4000);
  const Hash128 mine = UuidKey(MediaKind::kImage, "key-a", "cat");
  EXPECT_NE(mine, UuidKey(MediaKind::kImage, "key-b", "cat"));
  EXPECT_NE(mine, UuidKey(MediaKind::kVideo, "key-a", "cat"));
  cache.Add(KeyedHash("x"), Picture(1000), &mine);
  EXPECT_NE(cache.FindUuid(mine), nullptr);
  EXPECT_EQ(cache.FindUuid(UuidKey(MediaKind::kImage, "key-b", "cat")), nullptr);
  // Sent again with another picture: the name moves, and the old picture's end does not take it along.
  auto second = Picture(900);
  cache.Add(KeyedHash("y"), second, &mine);
  EXPECT_EQ(cache.FindUuid(mine), second);
  cache.Add(KeyedHash("z"), Picture(1900), nullptr);
  EXPECT_EQ(cache.Find(KeyedHash("x")), nullptr);
  EXPECT_EQ(cache.FindUuid(mine), second);
  cache.Add(KeyedHash("w"), Picture(3000), nullptr);
  EXPECT_EQ(cache.FindUuid(mine), nullptr);
}

TEST(MediaCacheTest, ManyNamesOfOnePictureCostMemoryToo) {
  MediaCache cache(10000);
  for (int i = 0; i < 10000; ++i) {
    const Hash128 name = UuidKey(MediaKind::kImage, "", StrCat(i));
    cache.Add(KeyedHash("x"), Picture(100), &name);
    ASSERT_LE(cache.num_bytes(), 10000);
  }
}

TEST(MediaCacheTest, OffKeepsNothing) {
  MediaCache cache(0);
  EXPECT_FALSE(cache.enabled());
  const Hash128 name = UuidKey(MediaKind::kImage, "", "n");
  cache.Add(KeyedHash("x"), Picture(0), &name);
  EXPECT_EQ(cache.Find(KeyedHash("x")), nullptr);
  EXPECT_EQ(cache.FindUuid(name), nullptr);
}

}  // namespace
}  // namespace fd
