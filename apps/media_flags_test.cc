#include "media_flags.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace fd {
namespace {

Status Parse(MediaPolicy* policy, const std::vector<std::string>& args) {
  FlagSet flags("x", "y");
  AddMediaPolicyFlags(flags, policy);
  auto parsed = flags.Parse(args);
  return parsed.ok() ? OkStatus() : parsed.status();
}

std::string ErrorOf(const std::vector<std::string>& args) {
  MediaPolicy policy;
  FlagSet flags("x", "y");
  AddMediaPolicyFlags(flags, &policy);
  auto parsed = flags.Parse(args);
  return parsed.ok() ? "" : parsed.status().message();
}

void Expect(const std::string& message, std::initializer_list<const char*> words) {
  for (const char* word : words)
    EXPECT_NE(message.find(word), std::string::npos) << message << "\nlacks " << word;
}

TEST(MediaFlags, Defaults) {
  MediaPolicy policy;
  EXPECT_TRUE(Parse(&policy, {}).ok());
  EXPECT_TRUE(policy.fetch);
  EXPECT_TRUE(policy.allowed_domains.empty());
  EXPECT_TRUE(policy.local_path.empty());
  EXPECT_EQ(policy.max_redirects, 3);
  EXPECT_EQ(policy.connect_timeout_s, 5);
  EXPECT_EQ(policy.total_timeout_s, 30);
  EXPECT_FALSE(policy.allow_private_addresses);
  EXPECT_TRUE(policy.public_endpoints_for_tests.empty());
}

TEST(MediaFlags, Values) {
  const std::string folder =
      std::filesystem::temp_directory_path() / ("fd_media_flags_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  MediaPolicy policy;
  EXPECT_TRUE(Parse(&policy, {"--no-media-fetch", "--allowed-media-domains", "A.com, *.b.org",
                              "--allowed-local-media-path", folder + "/./", "--media-max-redirects", "0",
                              "--media-connect-timeout", "0.5", "--media-fetch-timeout", "2.5"})
                  .ok());
  EXPECT_FALSE(policy.fetch);
  EXPECT_EQ(policy.allowed_domains, (std::vector<std::string>{"a.com", "*.b.org"}));
  EXPECT_EQ(policy.local_path, folder);
  EXPECT_EQ(policy.max_redirects, 0);
  EXPECT_EQ(policy.connect_timeout_s, 0.5);
  EXPECT_EQ(policy.total_timeout_s, 2.5);
  std::filesystem::remove(folder);
}

TEST(MediaFlags, RelativeFolderBecomesAbsolute) {
  MediaPolicy policy;
  EXPECT_TRUE(Parse(&policy, {"--allowed-local-media-path", "tests"}).ok());
  EXPECT_EQ(policy.local_path, std::filesystem::absolute("tests").string());
}

TEST(MediaFlags, Errors) {
  Expect(ErrorOf({"--allowed-media-domains", "https://a.com"}),
         {"--allowed-media-domains", "https://a.com", "*.example.com"});
  Expect(ErrorOf({"--allowed-media-domains", "a.com,"}), {"--allowed-media-domains", "is no host name"});
  Expect(ErrorOf({"--allowed-media-domains", "*"}), {"is no host name"});
  Expect(ErrorOf({"--allowed-local-media-path", "/nothing/here"}),
         {"--allowed-local-media-path /nothing/here", "exists"});
  Expect(ErrorOf({"--allowed-local-media-path", "/"}), {"every file of this machine"});
  Expect(ErrorOf({"--allowed-local-media-path", "/etc/.."}), {"every file of this machine"});
  Expect(ErrorOf({"--allowed-local-media-path", "CMakeLists.txt"}), {"must be a folder"});
  Expect(ErrorOf({"--media-max-redirects", "21"}), {"--media-max-redirects 21", "from 0 to 20"});
  Expect(ErrorOf({"--media-fetch-timeout", "0"}), {"--media-fetch-timeout 0"});
}

TEST(MediaFlags, EndpointsOfTests) {
  setenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS", "127.0.0.1:1,[::1]:2", 1);
  MediaPolicy policy;
  EXPECT_TRUE(Parse(&policy, {}).ok());
  unsetenv("FASTDEPLOY_TEST_PUBLIC_ENDPOINTS");
  EXPECT_EQ(policy.public_endpoints_for_tests, (std::vector<std::string>{"127.0.0.1:1", "[::1]:2"}));
}

}  // namespace
}  // namespace fd
