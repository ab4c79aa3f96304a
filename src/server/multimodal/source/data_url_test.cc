#include "server/multimodal/source/data_url.h"

#include <gtest/gtest.h>

#include "base/strings.h"

namespace fd {
namespace {

std::string Read(std::string_view url) {
  StatusOr<MediaBytes> media = ReadDataUrl(url, 1000, "--max-image-bytes");
  return media.ok() ? StrCat(media->media_type, "|", media->bytes) : "error: " + media.status().message();
}

TEST(DataUrl, Base64) {
  EXPECT_EQ(Read("data:image/png;base64,aGVsbG8="), "image/png|hello");
  EXPECT_EQ(Read("DATA:Image/PNG;BASE64,aGVsbG8="), "image/png|hello");
  EXPECT_EQ(Read("  data:image/jpeg;name=a.jpg;base64,aGVsbG8="), "image/jpeg|hello");
  EXPECT_EQ(Read("data:;base64,aGVsbG8="), "|hello");
  EXPECT_EQ(Read("data:image/png;base64,aGVsbG8"), "image/png|hello");
  EXPECT_EQ(Read("data:image/png;base64,aGVs\nbG8=\r\n"), "image/png|hello");
  EXPECT_EQ(Read("data:image/png;base64,aGVs bG8%3D"), "image/png|hello");
  EXPECT_EQ(Read("data:image/png;base64,%2B%2f8="), "image/png|\xfb\xff");
  EXPECT_EQ(Read("data:image/png;base64,aGk="), "image/png|hi");
  EXPECT_EQ(Read("data:image/png;base64,aGVsbA=="), "image/png|hell");
}

TEST(DataUrl, PercentEncoded) {
  EXPECT_EQ(Read("data:text/plain,a%20b%00c"), StrCat("text/plain|", std::string_view("a b\0c", 5)));
  EXPECT_EQ(Read("data:image/png;charset=x,%89PNG"), "image/png|\x89PNG");
  // Only the last parameter says base64.
  EXPECT_EQ(Read("data:image/png;base64;x=y,aGk="), "image/png|aGk=");
}

TEST(DataUrl, GarbageNamesItsPosition) {
  EXPECT_EQ(Read("data:image/png;base64,aGV*bG8="), "error: the data URL is no base64: '*' at character 25");
  EXPECT_EQ(Read("  data:image/png;base64,aGV*bG8="),
            "error: the data URL is no base64: '*' at character 27");
  EXPECT_EQ(Read("data:image/png;base64,aGV\xc3\xa9"),
            "error: the data URL is no base64: byte 0xc3 at character 25");
  EXPECT_EQ(Read("data:image/png;base64,aGk=aGk="),
            "error: the data URL is no base64: data after the padding at character 26");
  EXPECT_EQ(Read("data:image/png;base64,aGk-"),
            "error: the data URL is no base64: '-' at character 25 (the URL-safe alphabet is not accepted)");
  EXPECT_EQ(
      Read("data:image/png;base64,aGVsb"),
      "error: the data URL is no base64: 5 digits and 0 padding signs do not make whole bytes; it may have "
      "been cut short");
  EXPECT_TRUE(Read("data:image/png;base64,aGVs=").starts_with("error: the data URL is no base64"));
  EXPECT_TRUE(Read("data:image/png;base64,====").starts_with("error: the data URL is no base64"));
  EXPECT_EQ(Read("data:image/png;base64,aG%4"),
            "error: the data URL has a '%' without two hexadecimal digits at character 24");
  EXPECT_EQ(Read("data:image/png,ab%zz"),
            "error: the data URL has a '%' without two hexadecimal digits at character 17");
  // Frames joined by commas are no base64.
  EXPECT_TRUE(Read("data:video/jpeg;base64,aGk=,aGk=").starts_with("error: the data URL is no base64: ','"));
}

TEST(DataUrl, EmptyAndUnfinished) {
  EXPECT_TRUE(Read("").starts_with("error: the media URL is empty"));
  EXPECT_TRUE(Read("data:").starts_with("error: the data URL has no comma"));
  EXPECT_TRUE(Read("data:image/png;base64").starts_with("error: the data URL has no comma"));
  EXPECT_TRUE(Read("data:image/png;base64,").starts_with("error: the data URL holds no data"));
  EXPECT_TRUE(
      Read(StrCat("data:", std::string(5000, 'a'), ",x")).starts_with("error: the data URL has no comma"));
}

TEST(DataUrl, LimitIsCheckedBeforeDecoding) {
  std::string url = "data:image/png;base64," + std::string(4000, 'A');
  StatusOr<MediaBytes> media = ReadDataUrl(url, 2999, "--max-image-bytes");
  ASSERT_FALSE(media.ok());
  EXPECT_EQ(media.status().code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(media.status().message(), "the data URL holds 3000 bytes; the limit is 2999 (--max-image-bytes)");
  ASSERT_TRUE(ReadDataUrl(url, 3000, "--max-image-bytes").ok());
  EXPECT_EQ(ReadDataUrl("data:,abc", 2, "--max-video-bytes").status().code(), StatusCode::kPayloadTooLarge);
}

}  // namespace
}  // namespace fd
