#include "attachment.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/strings.h"
#include "model/weights/write_for_test.h"

namespace fd {
namespace {

bool Contains(const std::string& text, std::string_view piece) {
  return text.find(piece) != std::string::npos;
}

TEST(Attachment, FileUrlsEscapeWhatPathsMayNotHold) {
  EXPECT_EQ(FileUrl("/a/b.mp4"), "file:///a/b.mp4");
  EXPECT_EQ(FileUrl("/a b/50%#1?.mp4"), "file:///a%20b/50%25%231%3F.mp4");
  EXPECT_EQ(FileUrl("/\xe7\x8c\xab[1].mp4"), "file:///%E7%8C%AB%5B1%5D.mp4");
  EXPECT_EQ(FileUrl(std::string_view("/\n\x7f", 3)), "file:///%0A%7F");
}

TEST(Attachment, WhatIsNoReadableFile) {
  FolderForTest folder;
  for (const auto kind : {Attachment::Kind::kImage, Attachment::Kind::kVideo}) {
    const Status missing = CheckAttachment({kind, folder.File("no.bin")});
    EXPECT_TRUE(Contains(missing.message(), "no.bin: No such file")) << missing.message();
    const Status directory = CheckAttachment({kind, folder.path()});
    EXPECT_TRUE(Contains(directory.message(), "is a directory")) << directory.message();
    EXPECT_FALSE(MediaUrl({kind, folder.File("no.bin")}).ok());
  }
}

TEST(Attachment, BecomesAPartOfTheMessage) {
  FolderForTest folder;
  WriteFileForTest(folder.File("a.png"), "\x89PNG");
  WriteFileForTest(folder.File("b c.mp4"), "x");
  EXPECT_EQ(WriteJson(*UserMessage("Hi", {}, {})), R"({"role":"user","content":"Hi"})");
  const Attachment image{Attachment::Kind::kImage, folder.File("a.png")};
  const Attachment video{Attachment::Kind::kVideo, folder.File("x/../b c.mp4")};
  const Attachment plain_video{Attachment::Kind::kVideo, folder.File("b c.mp4")};
  EXPECT_FALSE(UserMessage("Hi", {video}, {}).ok()) << "x is no folder";
  VideoOptions options;
  options.frames = 24;
  const auto message = UserMessage("What?", {image, plain_video}, options);
  ASSERT_TRUE(message.ok()) << message.status().message();
  const JsonArray& parts = message->Find("content")->as_array();
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[0].Find("type")->as_string(), "image_url");
  EXPECT_TRUE(parts[0].Find("image_url")->Find("url")->is_string());
  EXPECT_EQ(parts[0].Find("fps"), nullptr);
  EXPECT_EQ(parts[1].Find("video_url")->Find("url")->as_string(),
            FileUrl(std::filesystem::canonical(plain_video.path).string()));
  EXPECT_EQ(parts[1].Find("target_frames")->as_int(), 24);
  EXPECT_EQ(parts[1].Find("fps")->as_int(), -1);
  EXPECT_EQ(parts[2].Find("text")->as_string(), "What?");
}

}  // namespace
}  // namespace fd
