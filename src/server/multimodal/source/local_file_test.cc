#include "server/multimodal/source/local_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/strings.h"

namespace fd {
namespace {

class LocalFile : public testing::Test {
 protected:
  void SetUp() override {
    top_ = StrCat(testing::TempDir(), "fd_local_file_", getpid());
    std::filesystem::remove_all(top_);
    root_ = top_ + "/media";
    std::filesystem::create_directories(root_ + "/sub");
    std::filesystem::create_directories(top_ + "/media2");
    Write(root_ + "/a.png", "hello");
    Write(root_ + "/sub/b c%#?\xe5\x9b\xbe.png", "odd");
    Write(root_ + "/empty.png", "");
    Write(root_ + "/big.png", std::string(3000, 'x'));
    Write(top_ + "/secret.png", "secret");
    Write(top_ + "/media2/secret.png", "secret");
  }
  void TearDown() override { std::filesystem::remove_all(top_); }
  static void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  std::string Read(const std::string& url) const { return ReadUnder(root_, url); }
  static std::string ReadUnder(const std::string& root, const std::string& url) {
    StatusOr<std::string> bytes = ReadLocalFile(url, root, 2000, "--max-image-bytes", {});
    return bytes.ok() ? *bytes : "error: " + bytes.status().message();
  }
  std::string top_, root_;
};

const std::string kNotThere =
    "error: the file URL names no readable file beneath the folder that this server allows "
    "(--allowed-local-media-path), for example file:///data/picture.png";

TEST_F(LocalFile, Reads) {
  EXPECT_EQ(Read("file://" + root_ + "/a.png"), "hello");
  EXPECT_EQ(Read("file://localhost" + root_ + "/a.png"), "hello");
  EXPECT_EQ(Read("FILE://LocalHost" + root_ + "/a.png"), "hello");
  EXPECT_EQ(Read("file:" + root_ + "/a.png"), "hello");
  EXPECT_EQ(Read("file://" + root_ + "//sub/.././a.png").substr(0, 6), "error:");
  EXPECT_EQ(Read("file://" + root_ + "//./a.png"), "hello");
  EXPECT_EQ(Read("file://" + root_ + "/sub/b%20c%25%23%3f%E5%9B%BE.png"), "odd");
  EXPECT_EQ(ReadUnder(root_ + "/", "file://" + root_ + "/a.png"), "hello");
  EXPECT_EQ(ReadUnder("/", "file://" + root_ + "/a.png"), "hello");
}

TEST_F(LocalFile, OutsideTellsNothing) {
  for (const std::string& path :
       {top_ + "/secret.png", top_ + "/nothing.png", std::string("/etc/passwd"), std::string("/etc/nothing"),
        std::string("/"), root_, root_ + "/", root_ + "/sub", root_ + "/nothing.png",
        top_ + "/media2/secret.png", root_ + "x/secret.png", root_ + "/a.png/x", std::string("/dev/zero"),
        std::string("/proc/self/environ")}) {
    EXPECT_EQ(Read("file://" + path), kNotThere) << path;
  }
}

TEST_F(LocalFile, Spellings) {
  for (const std::string& url :
       {"file://" + root_ + "/../secret.png", "file://" + root_ + "/%2e%2e/secret.png",
        "file://" + root_ + "/sub/%2E./a.png"}) {
    EXPECT_EQ(Read(url), "error: the file URL has '..' in its path, for example file:///data/picture.png")
        << url;
  }
  // An escaped slash is a slash.
  EXPECT_EQ(Read("file://" + root_ + "/..%2fsecret.png"),
            "error: the file URL has '..' in its path, for example file:///data/picture.png");
  EXPECT_EQ(Read("file://" + root_ + "%2fa.png"), "hello");
  for (const std::string& url :
       {std::string("file://other.example/a.png"), std::string("file://127.0.0.1/etc/passwd"),
        std::string("file://"), std::string("file://localhost")}) {
    EXPECT_NE(Read(url).find("three slashes"), std::string::npos) << url;
  }
  EXPECT_NE(Read("file:a.png").find("absolute path"), std::string::npos);
  EXPECT_NE(Read("file:").find("absolute path"), std::string::npos);
  EXPECT_NE(Read("file://" + root_ + "/a.png?x").find("%3F"), std::string::npos);
  EXPECT_NE(Read("file://" + root_ + "/a.png#x").find("%23"), std::string::npos);
  EXPECT_NE(Read("file://" + root_ + "/a.png%00.txt").find("zero byte"), std::string::npos);
  EXPECT_NE(Read("file://" + root_ + "/a%zz").find("hexadecimal"), std::string::npos);
  EXPECT_EQ(Read("file://" + root_ + "/" + std::string(10000, 'a')), kNotThere);
  EXPECT_EQ(Read("file://" + root_ + "\\..\\secret.png"), kNotThere);
}

TEST_F(LocalFile, Links) {
  std::filesystem::create_symlink("a.png", root_ + "/inside.png");
  std::filesystem::create_symlink("../a.png", root_ + "/sub/up.png");
  std::filesystem::create_symlink("../secret.png", root_ + "/out.png");
  std::filesystem::create_symlink("../nothing.png", root_ + "/out_nothing.png");
  std::filesystem::create_symlink(root_ + "/a.png", root_ + "/absolute.png");
  std::filesystem::create_symlink("/etc/passwd", root_ + "/passwd.png");
  std::filesystem::create_symlink("..", root_ + "/sub/back");
  std::filesystem::create_symlink("../..", root_ + "/sub/far");
  std::filesystem::create_symlink("/proc/self/root", root_ + "/magic");
  std::filesystem::create_symlink("loop.png", root_ + "/loop.png");
  EXPECT_EQ(Read("file://" + root_ + "/inside.png"), "hello");
  EXPECT_EQ(Read("file://" + root_ + "/sub/up.png"), "hello");
  EXPECT_EQ(Read("file://" + root_ + "/sub/back/a.png"), "hello");
  for (const char* name : {"/out.png", "/out_nothing.png", "/absolute.png", "/passwd.png",
                           "/sub/far/secret.png", "/magic/etc/passwd", "/loop.png"}) {
    EXPECT_EQ(Read("file://" + root_ + name), kNotThere) << name;
  }
  EXPECT_EQ(ReadUnder("/", "file://" + root_ + "/absolute.png"), "hello");
  EXPECT_EQ(ReadUnder("/", "file://" + root_ + "/magic" + root_ + "/a.png"), kNotThere);
}

TEST_F(LocalFile, WhatIsNoRegularFile) {
  ASSERT_EQ(mkfifo((root_ + "/fifo.png").c_str(), 0600), 0);
  EXPECT_EQ(Read("file://" + root_ + "/fifo.png"), kNotThere);
  for (const char* path : {"/dev/zero", "/dev/null", "/dev/tty", "/proc/self/environ", "/proc/self/mem",
                           "/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled", "/tmp"}) {
    EXPECT_EQ(ReadUnder("/", StrCat("file://", path)), kNotThere) << path;
  }
  if (geteuid() != 0) {
    chmod((root_ + "/a.png").c_str(), 0);
    EXPECT_EQ(Read("file://" + root_ + "/a.png"), kNotThere);
  }
}

TEST_F(LocalFile, Sizes) {
  StatusOr<std::string> bytes =
      ReadLocalFile("file://" + root_ + "/big.png", root_, 2999, "--max-video-bytes", {});
  ASSERT_FALSE(bytes.ok());
  EXPECT_EQ(bytes.status().code(), StatusCode::kPayloadTooLarge);
  EXPECT_EQ(bytes.status().message(),
            "the file has 3000 bytes or more; the limit is 2999 (--max-video-bytes)");
  EXPECT_TRUE(ReadLocalFile("file://" + root_ + "/big.png", root_, 3000, "--max-video-bytes", {}).ok());
  EXPECT_EQ(Read("file://" + root_ + "/empty.png"), "error: the file is empty");
  // A sparse file of 1 TB costs nothing.
  Write(root_ + "/sparse.png", "x");
  std::filesystem::resize_file(root_ + "/sparse.png", uintmax_t{1} << 40);
  EXPECT_NE(Read("file://" + root_ + "/sparse.png").find("1099511627776 bytes"), std::string::npos);
  std::stop_source stopped;
  stopped.request_stop();
  EXPECT_EQ(ReadLocalFile("file://" + root_ + "/a.png", root_, 10, "", stopped.get_token()).status().code(),
            StatusCode::kUnavailable);
}

TEST_F(LocalFile, WithoutOpenat2NoLinkIsFollowed) {
  std::filesystem::create_symlink("a.png", root_ + "/inside.png");
  std::filesystem::create_symlink("sub", root_ + "/link");
  Write(root_ + "/sub/c.png", "c");
  const int root_fd = open(root_.c_str(), O_PATH | O_DIRECTORY);
  const auto opens = [&](std::vector<std::string> parts, int flags) {
    const int fd = OpenBeneath(root_fd, parts, flags, false, true);
    if (fd >= 0) close(fd);
    return fd >= 0;
  };
  for (int flags : {O_PATH | O_CLOEXEC, O_RDONLY | O_CLOEXEC}) {
    EXPECT_TRUE(opens({"a.png"}, flags));
    EXPECT_TRUE(opens({"sub", "c.png"}, flags));
    EXPECT_FALSE(opens({"inside.png"}, flags));
    EXPECT_FALSE(opens({"link", "c.png"}, flags));
    EXPECT_FALSE(opens({"nothing.png"}, flags));
    EXPECT_FALSE(opens({"a.png", "x"}, flags));
  }
  close(root_fd);
}

}  // namespace
}  // namespace fd
