#include <gtest/gtest.h>

#include <utility>

#include "base/files.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/status.h"
#include "base/strings.h"
#include "base/utf8.h"

namespace fd {
namespace {

TEST(Strings, Formats) {
  EXPECT_EQ(StrCat("a", 1, ' ', 2.5, true), "a1 2.5true");
  EXPECT_EQ(HumanBytes(31503864), "31.5 MB");
  EXPECT_EQ(Join(Split("a,b,,c", ','), "|"), "a|b||c");
  EXPECT_EQ(Trim(" \ta b\n"), "a b");
  EXPECT_EQ(EditDistance("max-model-len", "max-modle-len"), 2);
}

TEST(Status, CarriesContextAndParam) {
  Status s = InvalidArgument("too long", "messages").WithContext("prompt");
  EXPECT_EQ(s.message(), "prompt: too long");
  EXPECT_EQ(s.param(), "messages");
}

TEST(Utf8, OneReplacementPerMaximalSubpart) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xf0\x9f\x98z"), "a\xEF\xBF\xBDz");      // truncated: one
  EXPECT_EQ(ReplaceInvalidUtf8("\xc0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");  // overlong: each byte
  EXPECT_EQ(ReplaceInvalidUtf8("\xed\xa0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // surrogate
  EXPECT_TRUE(IsValidUtf8("é😀\xF4\x8F\xBF\xBF"));
  EXPECT_FALSE(IsValidUtf8("\xF4\x90\x80\x80"));
  EXPECT_TRUE(DecodeUtf8("\xe2\x82").truncated);
}

// Known answers of the authors' reference programs: Random123's kat_vectors and SipHash's vectors.h.
TEST(Rng, PhiloxKnownAnswers) {
  auto zero = Philox4x32(0, 0, 0);
  EXPECT_EQ(zero[0], 0x6627e8d5u);
  EXPECT_EQ(zero[1], 0xe169c58du);
  EXPECT_EQ(zero[2], 0xbc57ac4cu);
  EXPECT_EQ(zero[3], 0x9b00dbd8u);
  float u = UniformFloat(1, 2);
  EXPECT_GE(u, 0.0f);
  EXPECT_LT(u, 1.0f);
}

TEST(Hash, SipHash128KnownAnswer) {
  // Key 00..0f, empty message: a3817f04ba25a8e66df67214c7550293.
  Hash128 h = SipHash128(0x0706050403020100u, 0x0f0e0d0c0b0a0908u, "");
  EXPECT_EQ(h.low, 0xe6a825ba047f81a3u);
  EXPECT_EQ(h.high, 0x930255c71472f66du);
  EXPECT_EQ(KeyedHash("a"), KeyedHash("a"));
  EXPECT_FALSE(KeyedHash("a") == KeyedHash("b"));
}

TEST(Files, HintsAboutAMappingLeaveItsBytes) {
  const auto file = MappedFile::Open("LICENSE");
  ASSERT_TRUE(file.ok());
  const std::string text = ReadFile("LICENSE").value();
  const int64_t size = (*file)->size_bytes();
  (*file)->Prefer(MappedFile::Pages::kLarge, 0, size);
  (*file)->Prefer(MappedFile::Pages::kSmall, 5001, 100);
  for (const auto& [offset, length] :
       {std::pair<int64_t, int64_t>{0, size}, {4095, 2}, {size - 1, 1 << 20}, {size, 1}}) {
    (*file)->Prefer(MappedFile::Pages::kSmall, offset, length);
    (*file)->Populate(offset, length);
    (*file)->Release(offset, length);
    EXPECT_EQ(std::string_view(reinterpret_cast<const char*>((*file)->data()), static_cast<size_t>(size)),
              text);
  }
}

TEST(Files, ErrorsNameThePath) {
  StatusOr<std::string> missing = ReadFile("no/such/file");
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("no/such/file"), std::string::npos);
  EXPECT_FALSE(ReadFile("/dev/zero").ok());
  EXPECT_FALSE(MappedFile::Open(".").ok());
  EXPECT_FALSE(ReadFile("LICENSE", 10).ok());
}

}  // namespace
}  // namespace fd
