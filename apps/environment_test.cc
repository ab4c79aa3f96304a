#include "environment.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace fd {
namespace {

TEST(Environment, Notes) {
  const auto notes =
      EnvironmentNotes({"HOME=/x", "FD_API_KEY=secret", "FD_MOE_BACKEND=triton", "FD_API_KYE=a", "FD_X=1",
                        "TRACES_ENABLE=true", "TRACES=1", "CUDA_VISIBLE_DEVICES=0"});
  ASSERT_EQ(notes.size(), 4u);
  EXPECT_NE(notes[3].find("TRACES_ENABLE has no effect"), std::string::npos);
  EXPECT_NE(notes[0].find("FD_MOE_BACKEND has no effect"), std::string::npos);
  EXPECT_NE(notes[1].find("did you mean FD_API_KEY?"), std::string::npos);
  EXPECT_EQ(notes[2], "FD_X is not known");
  for (const std::string& note : notes) EXPECT_EQ(note.find("secret"), std::string::npos);
}

TEST(Environment, Keys) {
  EXPECT_EQ(KeysOfList(" a,b ,, c"), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_TRUE(KeysOfList(" , ").empty());
  const std::string path = testing::TempDir() + "keys";
  std::ofstream(path) << "# ours\n\n one \ntwo\r\n";
  const auto keys = KeysOfFile(path, "--api-key-file");
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(*keys, (std::vector<std::string>{"one", "two"}));
  std::ofstream(path) << "# none\n";
  EXPECT_FALSE(KeysOfFile(path, "--api-key-file").ok());
  std::remove(path.c_str());
  const Status missing = KeysOfFile(path, "--api-key-file").status();
  EXPECT_NE(missing.message().find("--api-key-file"), std::string::npos);
}

}  // namespace
}  // namespace fd
