#include "server/multimodal/source/media_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "base/strings.h"
#include "server/multimodal/source/media_type.h"

namespace fd {
namespace {

std::string Read(std::string_view url, const MediaPolicy& policy = {}) {
  StatusOr<MediaBytes> media = ReadMedia(url, policy, 1000, "--max-image-bytes", {});
  return media.ok() ? StrCat(media->media_type, "|", media->bytes) : "error: " + media.status().message();
}

TEST(ReadMedia, DataUrls) {
  EXPECT_EQ(Read("data:image/png;base64,aGVsbG8="), "image/png|hello");
  EXPECT_EQ(Read(" DATA:;base64,aGVsbG8="), "|hello");
  EXPECT_EQ(Read("data:application/octet-stream;base64,aGVsbG8="), "application/octet-stream|hello");
  EXPECT_EQ(Read("  data:image/png;base64,aGV*bG8="),
            "error: the data URL is no base64: '*' at character 27");
  EXPECT_EQ(Read("data:text/html;base64,aGVsbG8="),
            "error: the data URL holds text/html, a web page and no picture or video; use the address of the "
            "file itself");
  EXPECT_EQ(Read("data:image/svg+xml,<svg/>"),
            "error: the data URL holds image/svg+xml, a drawing that is not rendered here; send PNG, JPEG, "
            "WebP or GIF");
  EXPECT_EQ(Read("data:application/x-mpegURL,#EXTM3U"),
            "error: the data URL holds application/x-mpegurl, a playlist that is not followed; send the "
            "video's own file, for "
            "example video/mp4");
  EXPECT_EQ(Read("data:te\x01xt/<b>,x"),
            "error: the data URL names a broken media type, no picture or video; example: image/png");
}

TEST(ReadMedia, OtherSchemesSayWhatIsAllowed) {
  const std::string allowed =
      "; allowed are data:image/png;base64,iVBORw0..., https://example.com/picture.png";
  for (const char* scheme :
       {"ftp", "gopher", "jar", "blob", "javascript", "concat", "about", "ws", "dict", "unix", "rtsp"}) {
    EXPECT_EQ(Read(StrCat(scheme, ":something-secret")),
              StrCat("error: the media URL's scheme ", scheme, ": is not read", allowed));
  }
  EXPECT_EQ(Read(""), "error: the media URL is empty" + allowed);
  EXPECT_EQ(Read(" \n"), "error: the media URL is empty" + allowed);
  for (const char* plain : {"/etc/passwd", "a.png", "aGVsbG8=", "//host/a.png", "\\\\host\\a.png", ":x",
                            "1a:x", "a b:x", "an-endless-scheme-of-many-letters:x"}) {
    EXPECT_EQ(Read(plain), "error: the media URL has no scheme" + allowed) << plain;
  }
}

TEST(ReadMedia, PolicyDecides) {
  MediaPolicy policy;
  policy.fetch = false;
  EXPECT_EQ(
      Read("https://example.com/a.png", policy),
      "error: this server fetches no URLs (--no-media-fetch); allowed is data:image/png;base64,iVBORw0...");
  EXPECT_EQ(Read("file:///etc/passwd"),
            "error: this server reads no files for clients (--allowed-local-media-path); allowed are "
            "data:image/png;base64,iVBORw0..., https://example.com/picture.png");
  const std::string folder = StrCat(testing::TempDir(), "fd_media_source_", getpid());
  ASSERT_EQ(std::system(("mkdir -p " + folder).c_str()), 0);
  std::ofstream(folder + "/a.png") << "hello";
  policy.local_path = folder;
  EXPECT_EQ(Read("file://" + folder + "/a.png", policy), "|hello");
  EXPECT_EQ(Read("ftp://x", policy),
            "error: the media URL's scheme ftp: is not read; allowed are data:image/png;base64,iVBORw0..., "
            "file:///folder/picture.png");
  ASSERT_EQ(std::system(("rm -r " + folder).c_str()), 0);
}

TEST(MediaType, OfAHeader) {
  EXPECT_EQ(MediaTypeOf(" Image/PNG ; charset=x"), "image/png");
  EXPECT_EQ(MediaTypeOf(""), "");
}

}  // namespace
}  // namespace fd
