#include "config_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace fd {
namespace {

std::string JsonOf(const std::string& yaml) {
  const auto entries = ParseConfig(yaml);
  if (!entries.ok()) return entries.status().message();
  JsonObject object;
  for (const ConfigEntry& entry : *entries) object.Set(entry.key, entry.value);
  return WriteJson(object);
}

// Each text, and what PyYAML's safe_load makes of it (but for 'on', 'yes' and the like, which stay texts).
TEST(ConfigFile, Values) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "{}"},
      {"# nothing\n\n---\n", "{}"},
      {"port: 8180\nhost: 0.0.0.0\n", R"({"port":8180,"host":"0.0.0.0"})"},
      {"a: 1.5 # half\nb: '#1'\nc: a#b", R"({"a":1.5,"b":"#1","c":"a#b"})"},
      {"a:\nb: ~\nc: null\nd: \"\"", R"({"a":null,"b":null,"c":null,"d":""})"},
      {"a: true\nb: False\nc: yes", R"({"a":true,"b":false,"c":"yes"})"},
      {"a: it's\nb: 'it''s'\nc: \"\\u00e9 \\\"x\\\"\"", R"({"a":"it's","b":"it's","c":")"
                                                        "\xc3\xa9"
                                                        R"( \"x\""})"},
      {"a: 'it''s # one' # two\nb: ''' #'''\nc: \"\\\" #\" # x",
       R"({"a":"it's # one","b":"' #'","c":"\" #"})"},
      {"a: http://x.org/y", R"({"a":"http://x.org/y"})"},
      {"a: {\"image\": 100, \"video\": 1}\nb: [1, \"x\"]", R"({"a":{"image":100,"video":1},"b":[1,"x"]})"},
      {"a:\n  image: 100\n  video: 1\nb: 2", R"({"a":{"image":100,"video":1},"b":2})"},
      {"a:\n- x\n- 2\nb: 3", R"({"a":["x",2],"b":3})"},
      {"a:\n    - x\n    - 'y z'\nb:\n  c:\n    d: 1\n  e: 2",
       R"({"a":["x","y z"],"b":{"c":{"d":1},"e":2}})"},
      {"a:\n  -\n    - 1\n    - 2\n  - 3", R"({"a":[[1,2],3]})"},
      {"\xef\xbb\xbfmax_model_len: 4096\r\nmodel: /m o d e l\r\n",
       R"({"max_model_len":4096,"model":"/m o d e l"})"},
  };
  for (const auto& [yaml, json] : cases) EXPECT_EQ(JsonOf(yaml), json) << yaml;
}

TEST(ConfigFile, WhatIsNotRead) {
  const std::pair<const char*, const char*> cases[] = {
      {"port 8180", "line 1: expected a line such as port: 8180"},
      {"a: 1\nb: &x 2", "line 2: values that begin with '&'"},
      {"a: *x", "'*'"},
      {"a: !!str 1", "'!'"},
      {"a: |\n  text", "line 1: values that begin with '|'"},
      {"a: {image: 1}", "must be JSON"},
      {"a: [1", "must be JSON"},
      {"a: 1\na: 2", "line 2: 'a' stands in line 1 already"},
      {"a:\n  b: 1\n  b: 2", "line 3: 'b' is there twice"},
      {"a: 1\n---\nb: 2", "line 2: one document"},
      {"a:\n\tb: 1", "line 2: a tab"},
      {"a: b: c", "': '"},
      {"a: 'x", "single quotes"},
      {"  a: 1", "beginning of their lines"},
      {"a: 1\n  b: 2", "line 2: a value ends with its line"},
      {"a:\n    b: 1\n  c: 2", "line 3"},
      {"a:\n  - x\n  b: 1", "line 3"},
      {"a:\n  b: 1\n  - x", "line 3: an item of a list among keys"},
      {"a:\n  - b: 1", "line 2: a map in a list"},
      {"b c: 1", "'b c' is no name"},
  };
  for (const auto& [yaml, message] : cases) {
    const auto entries = ParseConfig(yaml);
    ASSERT_FALSE(entries.ok()) << yaml;
    EXPECT_NE(entries.status().message().find(message), std::string::npos) << yaml << "\n"
                                                                           << entries.status().message();
  }
  std::string deep = "a:\n";
  for (int i = 1; i < 100; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_NE(ParseConfig(deep).status().message().find("deeper than 16 levels"), std::string::npos);
}

class ConfigFlags : public testing::Test {
 protected:
  Status Parse(const std::string& yaml, std::vector<std::string> args) {
    FlagSet flags("x", "y");
    flags.Integer("port", &port_, {0, 65535, 1}, "");
    flags.Text("model", &model_, "", "FOLDER");
    flags.Text("config", &config_, "", "FILE");
    flags.Text("limit-mm-per-prompt", &limits_, "", "JSON");
    flags.List("api-key", &keys_, "", "KEY");
    flags.Switch("log-prompts", &log_prompts_, "");
    flags.Refuse("enable-eplb", false, "is still to come");
    const std::string path = testing::TempDir() + "flags.yaml";
    std::ofstream(path) << yaml;
    args.insert(args.end(), {"--config", path});
    FD_RETURN_IF_ERROR(ExpandConfigFile(flags, &args));
    const Status status = flags.Parse(args).status();
    words_ = flags.words();
    return status;
  }
  std::vector<std::string> words_;
  int64_t port_ = 1;
  std::string model_, config_, limits_;
  std::vector<std::string> keys_;
  bool log_prompts_ = false;
};

TEST_F(ConfigFlags, TheCommandLineComesFirst) {
  const Status s = Parse(
      "port: 5\nmodel: theirs\napi_key:\n  - a\n  - b\nlimit_mm_per_prompt:\n  image: 3\nlog-prompts: yes\n"
      "enable_eplb: false\n",
      {"ours", "--api-key", "c"});
  ASSERT_TRUE(s.ok()) << s.message();
  EXPECT_EQ(port_, 5);
  EXPECT_EQ(limits_, "{\"image\":3}");
  EXPECT_EQ(keys_, (std::vector<std::string>{"c"}));
  EXPECT_TRUE(log_prompts_);
  EXPECT_EQ(model_, "");
  EXPECT_EQ(words_, (std::vector<std::string>{"ours"}));
}

TEST_F(ConfigFlags, Lists) {
  ASSERT_TRUE(Parse("api-key: [\"a\", \"b=c\"]\nmodel: m\n", {"--port=7"}).ok());
  EXPECT_EQ(keys_, (std::vector<std::string>{"a", "b=c"}));
  EXPECT_EQ(model_, "m");
  EXPECT_EQ(port_, 7);
}

TEST_F(ConfigFlags, Errors) {
  const std::pair<const char*, const char*> cases[] = {
      {"prot: 1", "line 1: there is no flag --prot; did you mean --port?"},
      {"log_prompts: 3", "is a switch"},
      {"port: x", "--port x"},
      {"enable-eplb: true", "is still to come"},
      {"config: other.yaml", "no place"},
  };
  for (const auto& [yaml, message] : cases) {
    const Status s = Parse(yaml, {});
    EXPECT_NE(s.message().find(message), std::string::npos) << yaml << "\n" << s.message();
  }
  std::vector<std::string> args = {"--config", "no/such.yaml"};
  FlagSet flags("x", "y");
  flags.Text("config", &config_, "", "FILE");
  EXPECT_NE(ExpandConfigFile(flags, &args).message().find("--config no/such.yaml"), std::string::npos);
}

}  // namespace
}  // namespace fd
