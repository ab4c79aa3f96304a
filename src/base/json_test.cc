#include "base/json.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

std::string RoundTrip(const std::string& text) {
  StatusOr<Json> json = ParseJson(text);
  return json.ok() ? WriteJson(*json) : json.status().message();
}

TEST(Json, RoundTrips) {
  EXPECT_EQ(RoundTrip(R"( {"b": [1, -2.5, 1e3, true, null], "a": {"x": ""}} )"),
            R"({"b":[1,-2.5,1000.0,true,null],"a":{"x":""}})");
  EXPECT_EQ(RoundTrip(R"("A\n\u00e9\ud83d\ude00\/")"), "\"A\\né😀/\"");
  EXPECT_EQ(RoundTrip("9223372036854775807"), "9223372036854775807");
  EXPECT_EQ(RoundTrip("9223372036854775808"), "9223372036854775808.0");
  EXPECT_EQ(RoundTrip("-0"), "0");
  EXPECT_EQ(RoundTrip("1e-400"), "0.0");
  EXPECT_EQ(RoundTrip("[]"), "[]");
  EXPECT_EQ(
      RoundTrip("[0, 7 ,10,\n123456789012345678 , 999999999999999999, 9223372036854775807,0.5, 1e2,-3,12 ]"),
      "[0,7,10,123456789012345678,999999999999999999,9223372036854775807,0.5,100.0,-3,12]");
  EXPECT_EQ(RoundTrip("[9223372036854775808,12345678901234567890.5]"),
            "[9223372036854775808.0,12345678901234567168.0]");
  EXPECT_EQ(RoundTrip("{}"), "{}");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,]",
                           "{\"a\":1,}",
                           "{a:1}",
                           "[1 2]",
                           "[1",
                           "[01]",
                           "[00]",
                           "[1,02]",
                           "[12a]",
                           "[1.]",
                           "[,1]",
                           "[1;2]",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "-",
                           "1e",
                           "NaN",
                           "Infinity",
                           "1e999",
                           "\"\\x\"",
                           "\"\\ud83d\"",
                           "\"\\ude00\"",
                           "\"\\ud83d\\u0041\"",
                           "\"a",
                           "\"\t\"",
                           "\"\xff\"",
                           "\"\xc0\x80\"",
                           "\"\xed\xa0\x80\"",
                           "tru",
                           "nul",
                           "[1]]",
                           "1 2",
                           "\xef\xbb\xbf{}",
                           "'a'",
                           "{\"a\":1,\"a\":2}",
                           "// c\n1",
                           "\"\\u12g4\"",
                           "\"\\u12"}) {
    StatusOr<Json> json = ParseJson(text);
    EXPECT_FALSE(json.ok()) << text;
    if (!json.ok()) {
      EXPECT_EQ(json.status().code(), StatusCode::kInvalidArgument);
    }
  }
  EXPECT_EQ(ParseJson("[1 2]").status().message(), "JSON: expected ',' or ']' at byte 3, but found '2'");
}

TEST(Json, Limits) {
  auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(ParseJson(nested(64)).ok());
  EXPECT_FALSE(ParseJson(nested(65)).ok());
  EXPECT_FALSE(ParseJson(std::string(1'000'000, '[')).ok());
  JsonLimits few;
  few.max_values = 3;
  EXPECT_TRUE(ParseJson("[1,2]", few).ok());
  EXPECT_FALSE(ParseJson("[1,2,3]", few).ok());
}

TEST(Json, LargeObjectsAreIndexedAndOrdered) {
  JsonObject object;
  for (int i = 0; i < 1000; ++i) object.Set(StrCat("key", (i * 7919) % 1000), Json(i));
  EXPECT_EQ(object.size(), 1000u);
  EXPECT_EQ(object.begin()->first, "key0");
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(object.Find(StrCat("key", (i * 7919) % 1000))->as_int(), i);
  EXPECT_EQ(object.Find("nothing"), nullptr);
  EXPECT_TRUE(object.Erase("key0"));
  EXPECT_EQ(object.Find("key0"), nullptr);
  EXPECT_EQ(object.Find(StrCat("key", 7919 % 1000))->as_int(), 1);
}

TEST(Json, WritesIllFormedTextAsReplacement) {
  std::string out;
  AppendJsonString(out, "a\xff\"\x01");
  EXPECT_EQ(out, "\"a\xEF\xBF\xBD\\\"\\u0001\"");
}

}  // namespace
}  // namespace fd
