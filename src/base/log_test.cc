#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "base/log_sink.h"

namespace fd {
namespace {

std::string Contents(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

// The log is one for the process, so one test goes through its states.
TEST(Log, FileFormatsEscapesAndRotation) {
  const std::string folder = testing::TempDir() + "fd_log_test";
  const std::string path = folder + "/fastdeploy.log";
  for (const char* end : {"", ".1", ".2", ".3"}) std::remove((path + end).c_str());
  LogOptions options;
  options.directory = folder;
  options.format = LogFormat::kJson;
  options.max_bytes = 4096;
  options.backups = 2;
  ASSERT_TRUE(SetUpLog(options).ok());
  const std::string separators = "\xe2\x80\xa8\xe2\x80\xae\xc2\x85";  // U+2028, U+202e, U+0085
  LogEvent(LogLevel::kInfo, "request",
           {{"path", "/a\r\nforged \x1b[2J\xff"}, {"ms", "1.5", true}, {"id", ""}, {"user", separators}});
  const std::string line = Contents(path);
  const auto json = ParseJson(line.substr(0, line.size() - 1));
  ASSERT_TRUE(json.ok()) << line;
  EXPECT_EQ(json->Find("path")->as_string(), "/a\r\nforged \x1b[2J\xef\xbf\xbd");
  EXPECT_EQ(json->Find("ms")->as_double(), 1.5);
  EXPECT_EQ(json->Find("user")->as_string(), separators);
  EXPECT_NE(line.find(R"("\u2028\u202e\u0085")"), std::string::npos) << line;
  EXPECT_EQ(json->Find("id"), nullptr);
  EXPECT_EQ(line.find('\n'), line.size() - 1);

  options.format = LogFormat::kText;
  ASSERT_TRUE(SetUpLog(options).ok());
  LogEvent(LogLevel::kWarning, "request",
           {{"path", "/a b\n\x1b[2J\xc2\x9b"}, {"plain", "x"}, {"user", separators}});
  const std::string text = Contents(path).substr(line.size());
  EXPECT_NE(text.find(R"(warning: request path="/a b\u000a\u001b[2J\u009b" plain=x user=\u2028\u202e\u0085)"),
            std::string::npos)
      << text;

  for (int i = 0; i < 100; ++i) LogInfo(std::string(400, 'x'));
  EXPECT_LE(Contents(path).size(), 4096u);
  EXPECT_LE(Contents(path + ".1").size(), 4096u);
  EXPECT_FALSE(Contents(path + ".2").empty());
  struct stat info{};
  EXPECT_NE(::stat((path + ".3").c_str(), &info), 0);

  options.directory = "/proc/no/such";
  EXPECT_FALSE(SetUpLog(options).ok());
  SetLogLevel(LogLevel::kInfo);
}

}  // namespace
}  // namespace fd
