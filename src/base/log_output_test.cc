#include "base/log_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/fault.h"
#include "base/log_sink.h"
#include "base/strings.h"

namespace fd {
namespace {

using Event = RotatingFile::Event;

std::string Contents(const std::string& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

struct Pipe {
  Pipe() {
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);  // the reader's own end
  }
  ~Pipe() {
    CloseReader();
    close(ends[1]);
  }
  void CloseReader() {
    if (ends[0] >= 0) close(std::exchange(ends[0], -1));
  }
  std::string ReadAll() {
    std::string all;
    char buffer[65536];
    for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;)
      all.append(buffer, static_cast<size_t>(n));
    return all;
  }
  int ends[2];
};

TEST(PatientStream, AReaderThatStopsIsNotWaitedForAndGetsWholeLinesLater) {
  Pipe pipe;
  const int64_t lost_before = LostLogLines();
  PatientStream stream(pipe.ends[1], 200'000);
  std::string sent;
  int64_t lost = 0, told = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 5000; ++i) {
    const std::string line = StrCat(i, " ", std::string(static_cast<size_t>(i % 150), 'x'), "\n");
    const int64_t result = stream.Write(line);
    if (result >= 0) {
      sent += line;
      told += result;
    } else {
      ++lost;
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  EXPECT_GT(lost, 100);
  EXPECT_GT(sent.size(), 200'000u);
  std::string got = pipe.ReadAll();
  for (int i = 0; i < 100 && got.size() < sent.size(); ++i) {
    stream.Flush(std::chrono::steady_clock::now());
    got += pipe.ReadAll();
  }
  EXPECT_EQ(got, sent);
  told += stream.Write("after\n");
  EXPECT_EQ(told, lost);  // each of them once
  EXPECT_EQ(stream.Write("more\n"), 0);
  EXPECT_EQ(pipe.ReadAll(), "after\nmore\n");
  EXPECT_EQ(LostLogLines() - lost_before, lost);
  EXPECT_EQ(fcntl(pipe.ends[1], F_GETFL) & O_NONBLOCK, 0);  // others share it
}

TEST(PatientStream, AReaderThatIsGoneCostsLinesOnly) {
  signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  PatientStream stream(pipe.ends[1]);
  EXPECT_EQ(stream.Write("one\n"), 0);
  pipe.CloseReader();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(stream.Write("lost\n"), -1);
  PatientStream closed(1 << 20);  // no such descriptor
  EXPECT_EQ(closed.Write("lost\n"), -1);
}

class RotatingFileTest : public testing::Test {
 protected:
  RotatingFileTest() : path_(testing::TempDir() + "fd_log_output_test") { Clear(); }
  ~RotatingFileTest() override {
    EXPECT_TRUE(SetFaults("").ok());
    Clear();
  }
  void Clear() {
    for (const char* end : {"", ".1", ".2", ".old"}) std::remove((path_ + end).c_str());
  }
  const std::string path_;
};

TEST_F(RotatingFileTest, ADiskThatIsFullIsToldOnceAndItsEndToo) {
  RotatingFile file;
  ASSERT_TRUE(file.Open(path_, 1 << 20, 1));
  ASSERT_TRUE(SetFaults("log_disk_full@at=2,times=3").ok());
  EXPECT_EQ(file.Write("1\n").event, Event::kNone);
  const RotatingFile::Outcome failed = file.Write("2\n");
  EXPECT_EQ(failed.event, Event::kFailed);
  EXPECT_EQ(failed.error, ENOSPC);
  EXPECT_EQ(file.Write("3\n").event, Event::kNone);
  EXPECT_EQ(file.Write("4\n").event, Event::kNone);
  const RotatingFile::Outcome again = file.Write("5\n");
  EXPECT_EQ(again.event, Event::kWorksAgain);
  EXPECT_EQ(again.lost_lines, 3);
  EXPECT_EQ(Contents(path_), "1\n5\n");
}

TEST_F(RotatingFileTest, NoPartOfALineStays) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  RotatingFile file;
  ASSERT_TRUE(file.Open(path_, 1 << 20, 1));
  EXPECT_EQ(file.Write("12345678\n").event, Event::kNone);
  rlimit small = before;
  small.rlim_cur = 12;  // three bytes more fit
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto failed = file.Write("a line that is longer\n");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(failed.event, Event::kFailed);
  EXPECT_EQ(Contents(path_), "12345678\n");
  EXPECT_EQ(file.Write("next\n").event, Event::kWorksAgain);
  EXPECT_EQ(Contents(path_), "12345678\nnext\n");
}

TEST_F(RotatingFileTest, WhoRenamesItGetsANewOne) {
  RotatingFile file;
  ASSERT_TRUE(file.Open(path_, 1 << 20, 1));
  file.Write("1\n");
  ASSERT_EQ(std::rename(path_.c_str(), (path_ + ".old").c_str()), 0);
  file.Write("2\n");
  EXPECT_EQ(file.Reopen().event, Event::kNone);
  file.Write("3\n");
  EXPECT_EQ(Contents(path_ + ".old"), "1\n2\n");
  EXPECT_EQ(Contents(path_), "3\n");
}

}  // namespace
}  // namespace fd
