// Stop strings and complete UTF-8, with a tokenizer whose tokens are arbitrary bytes.
#include "server/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"

namespace fd {
namespace {

// Token i is pieces[i].
class PieceTokenizer final : public Tokenizer {
 public:
  explicit PieceTokenizer(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  std::vector<int32_t> EncodeSpans(const std::vector<TextSpan>&) const override { return {}; }
  std::vector<int32_t> EncodeWithBos(std::string_view) const override { return {}; }
  std::string Decode(const std::vector<int32_t>& ids, bool skip) const override {
    std::string all;
    for (int32_t id : ids) all += TokenBytes(id, skip);
    return ReplaceInvalidUtf8(all);
  }
  std::string TokenBytes(int32_t id, bool) const override { return pieces_[static_cast<size_t>(id)]; }
  int64_t vocab_size() const override { return static_cast<int64_t>(pieces_.size()); }
  std::optional<int32_t> TokenId(std::string_view) const override { return std::nullopt; }
  bool IsSpecial(int32_t) const override { return false; }
  const std::string& bos_token() const override { return none_; }
  const std::string& eos_token() const override { return none_; }
  const std::string& pad_token() const override { return none_; }
  const std::string& unk_token() const override { return none_; }

 private:
  std::vector<std::string> pieces_;
  std::string none_;
};

struct Result {
  std::string text;
  std::string stop;
  bool operator==(const Result&) const = default;
};

Result Stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stop,
              bool include_stop) {
  const PieceTokenizer tokenizer(pieces);
  Detokenizer detokenizer(&tokenizer, true, stop, include_stop);
  std::string text;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string piece = detokenizer.Push(static_cast<int32_t>(i));
    EXPECT_TRUE(IsValidUtf8(piece));
    text += piece;
  }
  text += detokenizer.Flush();
  return {text, detokenizer.stop_found()};
}

// By definition: the stop string whose end comes first, of equal ends the longest.
Result Expected(const std::string& bytes, const std::vector<std::string>& stop, bool include_stop) {
  const std::string text = ReplaceInvalidUtf8(bytes);
  for (size_t end = 1; end <= text.size(); ++end) {
    const std::string* best = nullptr;
    for (const std::string& s : stop) {
      if (s.empty() || !std::string_view(text).substr(0, end).ends_with(s)) continue;
      if (best == nullptr || s.size() > best->size()) best = &s;
    }
    if (best != nullptr) return {text.substr(0, include_stop ? end : end - best->size()), *best};
  }
  return {text, ""};
}

TEST(Detokenizer, AnySplitGivesTheSameText) {
  std::mt19937 random(7);
  const std::vector<std::string> parts = {
      "a",        "b",    "ab",   "\n",           "\xE4\xBD\xA0", "\xF0\x9F\x98\x80",
      "\xE4\xBD", "\x80", "\xFF", "\xEF\xBF\xBD", "User:"};
  const std::vector<std::string> stop_parts = {
      "a", "b", "\n", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD", "User"};
  auto pick = [&](const auto& from) { return from[random() % from.size()]; };
  int stopped = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes;
    for (size_t n = random() % 20; n > 0; --n) bytes += pick(parts);
    std::vector<std::string> stop(random() % 4);
    for (std::string& s : stop) {
      for (size_t n = 1 + random() % 4; n > 0; --n) s += pick(stop_parts);
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = 1 + random() % 5;
      pieces.push_back(bytes.substr(at, length));
      at += length;
    }
    const bool include_stop = random() % 2 == 0;
    const Result expected = Expected(bytes, stop, include_stop);
    stopped += expected.stop.empty() ? 0 : 1;
    ASSERT_EQ(Stream(pieces, stop, include_stop), expected) << "round " << round;
  }
  EXPECT_GT(stopped, 2000);
}

TEST(Detokenizer, ShowsWhatCannotBeAStop) {
  const PieceTokenizer tokenizer({"x</", "s", ">y", "z"});
  Detokenizer d(&tokenizer, true, {"</s>"});
  EXPECT_EQ(d.Push(0), "x");
  EXPECT_EQ(d.Push(1), "");
  EXPECT_FALSE(d.stopped());
  EXPECT_EQ(d.Push(2), "");
  EXPECT_TRUE(d.stopped());
  EXPECT_EQ(d.stop_found(), "</s>");
  EXPECT_EQ(d.Push(3), "");
  EXPECT_EQ(d.Flush(), "");
  Detokenizer e(&tokenizer, true, {"</t>", ""});
  EXPECT_EQ(e.Push(0), "x");
  EXPECT_EQ(e.Push(1), "</s");
}

TEST(Detokenizer, StopAtOnceAndIncluded) {
  EXPECT_EQ(Stream({"stop"}, {"stop"}, false), (Result{"", "stop"}));
  EXPECT_EQ(Stream({"a st", "op b"}, {"stop"}, true), (Result{"a stop", "stop"}));
  EXPECT_EQ(Stream({"ab", "cd"}, {"abcd", "bc"}, false), (Result{"a", "bc"}));
  EXPECT_EQ(Stream({"abcd"}, {"abcd", "bc"}, false), (Result{"a", "bc"}));
  EXPECT_EQ(Stream({"xabc"}, {"bc", "abc"}, false), (Result{"x", "abc"}));
}

TEST(Detokenizer, HoldsIncompleteCharacters) {
  const PieceTokenizer tokenizer({"\xF0\x9F", "\x98", "\x80", "\xE4\xBD"});
  Detokenizer d(&tokenizer, true);
  EXPECT_EQ(d.Push(0), "");
  EXPECT_EQ(d.Push(1), "");
  EXPECT_EQ(d.Push(2), "\xF0\x9F\x98\x80");
  EXPECT_EQ(d.Push(3), "");
  EXPECT_EQ(d.Flush(), "\xEF\xBF\xBD");
}

TEST(DetokenizerTest, TextInATokensPlace) {
  const PieceTokenizer tokenizer({"a", "<x", "\xe4\xbd"});
  Detokenizer detokenizer(&tokenizer, true, {"<xy"});
  EXPECT_EQ(detokenizer.Push(0), "a");
  EXPECT_EQ(detokenizer.Push(1), "");
  EXPECT_EQ(detokenizer.PushText("<tool>"), "<x<tool>");
  // What is no UTF-8 ends where other text begins.
  EXPECT_EQ(detokenizer.Push(2), "");
  EXPECT_EQ(detokenizer.PushText("b"),
            "\xef\xbf\xbd"
            "b");
  EXPECT_EQ(detokenizer.PushText("<"), "");
  EXPECT_EQ(detokenizer.PushText("xyz"), "");
  EXPECT_TRUE(detokenizer.stopped());
  EXPECT_EQ(detokenizer.PushText("more"), "");
}

}  // namespace
}  // namespace fd
