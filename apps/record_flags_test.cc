#include "record_flags.h"

#include <gtest/gtest.h>

#include "flag_set.h"
#include "model_flags.h"

namespace fd {
namespace {

TEST(RecordFlags, WhatWasGivenIsGivenAgain) {
  ModelFlags values;
  bool verbose = false;
  std::string key;
  FlagSet flags("", "");
  AddModelFlags(flags, &values, true);
  flags.Switch("verbose", &verbose, "");
  flags.Text("api-key", &key, "", "KEY");
  const auto parsed = flags.Parse({"--dtype", "float32", "--no-overlap", "--verbose", "--api-key", "secret",
                                   "--quantization", "{\"quantization\": \"wint4\"}", "--num_kv_pages=7"});
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  const JsonObject recorded = RecordedFlags(flags.Given(), "some folder");
  EXPECT_EQ(WriteJson(recorded).find("secret"), std::string::npos);

  const auto args = ArgsOf(recorded);
  ASSERT_TRUE(args.ok()) << args.status().message();
  ModelFlags again;
  FlagSet replay("", "");
  AddModelFlags(replay, &again, true);
  const auto reparsed = replay.Parse(*args);
  ASSERT_TRUE(reparsed.ok()) << reparsed.status().message();
  EXPECT_EQ(again.model_dir, "some folder");
  EXPECT_EQ(again.dtype, "float32");
  EXPECT_TRUE(again.no_overlap);
  EXPECT_FALSE(again.no_cuda_graphs);
  EXPECT_EQ(again.num_kv_pages, 7);
  EXPECT_EQ(again.quantization, values.quantization);
}

TEST(RecordFlags, OtherFlagsAreRefused) {
  for (const JsonObject& recorded :
       {JsonObject{{"step-log", "/somewhere"}}, JsonObject{{"dtype", 5}}, JsonObject{{"", "x"}}}) {
    EXPECT_FALSE(ArgsOf(recorded).ok());
  }
}

}  // namespace
}  // namespace fd
