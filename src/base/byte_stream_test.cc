#include "base/byte_stream.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/build_id.h"
#include "base/crc32.h"

namespace fd {
namespace {

TEST(ByteStream, WhatIsWrittenIsRead) {
  const int64_t numbers[] = {0,
                             1,
                             -1,
                             63,
                             -64,
                             64,
                             1 << 20,
                             std::numeric_limits<int64_t>::max(),
                             std::numeric_limits<int64_t>::min()};
  std::string bytes;
  ByteWriter out(&bytes);
  for (const int64_t n : numbers) {
    out.Signed(n);
    out.Unsigned(static_cast<uint64_t>(n));
  }
  out.Fixed32(0x01020304);
  out.Fixed64(0x0102030405060708);
  out.Text("text");
  EXPECT_EQ(bytes.substr(bytes.size() - 17, 4), "\x04\x03\x02\x01");
  ByteReader in(bytes);
  for (const int64_t n : numbers) {
    EXPECT_EQ(in.Signed(), n);
    EXPECT_EQ(in.Unsigned(), static_cast<uint64_t>(n));
  }
  EXPECT_EQ(in.Fixed32(), 0x01020304u);
  EXPECT_EQ(in.Fixed64(), 0x0102030405060708u);
  EXPECT_EQ(in.Text(), "text");
  EXPECT_TRUE(in.AtEnd());
  // Cut anywhere it fails, and stays so.
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    ByteReader short_in(std::string_view(bytes).substr(0, cut));
    for (size_t i = 0; i < 2 * std::size(numbers); ++i) short_in.Unsigned();
    short_in.Fixed32();
    short_in.Fixed64();
    short_in.Text();
    EXPECT_FALSE(short_in.ok()) << cut;
    EXPECT_EQ(short_in.Unsigned(), 0u);
  }
}

TEST(ByteStream, NumbersOfMoreThan64Bits) {
  EXPECT_FALSE([] {
    ByteReader in("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02");
    in.Unsigned();
    return in.ok();
  }());
  const std::string endless(20, '\xff');
  ByteReader in(endless);
  in.Unsigned();
  EXPECT_FALSE(in.ok());
}

TEST(Crc32, AsZlib) {
  EXPECT_EQ(Crc32(""), 0u);
  EXPECT_EQ(Crc32("123456789"), 0xcbf43926u);
  const std::string text(1000, 'x');
  for (const size_t cut : {0u, 1u, 7u, 8u, 9u, 500u, 1000u})
    EXPECT_EQ(Crc32(std::string_view(text).substr(cut), Crc32(std::string_view(text).substr(0, cut))),
              Crc32(text));
}

TEST(BuildId, IsHexadecimal) {
  const std::string id = BuildId();
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_GE(id.size(), 16u);
}

}  // namespace
}  // namespace fd
