#include "chat_line.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace fd {
namespace {

using Kind = ChatLine::Kind;

TEST(ChatLine, QuestionsAndCommands) {
  const struct {
    const char* line;
    Kind kind;
    const char* text;
  } cases[] = {
      {"", Kind::kNothing, ""},
      {" \t\r", Kind::kNothing, ""},
      {"What is 1 + 1?\r", Kind::kQuestion, "What is 1 + 1?"},
      {"//etc/fstab?", Kind::kQuestion, "/etc/fstab?"},
      {"/image a b.png ", Kind::kImage, "a b.png"},
      {"/image 'a b.png'", Kind::kImage, "a b.png"},
      {"/video \"c.mp4\"", Kind::kVideo, "c.mp4"},
      {"/video\tc.mp4", Kind::kVideo, "c.mp4"},
      {"/system Be kind.", Kind::kSystem, "Be kind."},
      {"/system", Kind::kSystem, ""},
      {"/clear", Kind::kClear, ""},
      {"/new", Kind::kClear, ""},
      {"/undo", Kind::kUndo, ""},
      {"/help", Kind::kHelp, ""},
      {"/quit", Kind::kQuit, ""},
      {"/exit", Kind::kQuit, ""},
  };
  for (const auto& c : cases) {
    const auto line = ParseChatLine(c.line);
    ASSERT_TRUE(line.ok()) << c.line << ": " << line.status().message();
    EXPECT_EQ(line->kind, c.kind) << c.line;
    EXPECT_EQ(line->text, c.text) << c.line;
  }
  setenv("HOME", "/home/someone", 1);
  EXPECT_EQ(ParseChatLine("/image ~/a.png")->text, "/home/someone/a.png");
  EXPECT_EQ(ParseChatLine("/image '")->text, "'");
}

TEST(ChatLine, ErrorsSayHowALineIsWritten) {
  const struct {
    const char* line;
    const char* words;
  } cases[] = {
      {"/imag a.png", "did you mean /image?"},
      {"/etc/fstab", "// begins a question"},
      {"/", "/help lists"},
      {"/image", "/image needs a file, for example /image photo.jpg"},
      {"/video ", "clip.mp4"},
      {"/clear all", "/clear takes nothing"},
      {"\xff", "UTF-8"},
  };
  for (const auto& c : cases) {
    const auto line = ParseChatLine(c.line);
    ASSERT_FALSE(line.ok()) << c.line;
    EXPECT_NE(line.status().message().find(c.words), std::string::npos) << line.status().message();
  }
  for (const char* name :
       {"/image PATH", "/video PATH", "/system TEXT", "/undo", "/clear", "/help", "/quit", "Ctrl-C"}) {
    EXPECT_NE(ChatHelp().find(name), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace fd
