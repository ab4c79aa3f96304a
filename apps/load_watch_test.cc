#include "load_watch.h"

#include <gtest/gtest.h>

#include <atomic>

namespace fd {
namespace {

using std::chrono::milliseconds;

TEST(LoadWatch, GivesUpOnlyWithoutProgress) {
  std::atomic<int> given_up{0};
  LoadWatch watch({.warn_s = 100, .timeout_s = 1.0, .give_up = [&](double seconds) {
                     EXPECT_GE(seconds, 1.0);
                     ++given_up;
                   }});
  for (int i = 1; i <= 30; ++i) {
    watch.Update(i, 100);
    std::this_thread::sleep_for(milliseconds(60));
  }
  EXPECT_EQ(given_up, 0);
  for (int i = 0; i < 1000 && given_up == 0; ++i) {
    watch.Update(30, 100);  // the same again is none
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(given_up, 1);
  watch.Finish();
}

TEST(LoadWatch, WarnsAgainAndAgainAndEndsAtOnce) {
  testing::internal::CaptureStderr();
  {
    LoadWatch watch({.warn_s = 0.2, .timeout_s = 0, .give_up = {}});
    watch.Update(2'000'000, 4'000'000);
    std::this_thread::sleep_for(milliseconds(1000));
  }
  const std::string text = testing::internal::GetCapturedStderr();
  size_t lines = 0;
  for (size_t at = 0; (at = text.find("has not moved", at)) != std::string::npos; ++at) ++lines;
  EXPECT_GE(lines, 2u) << text;
  EXPECT_LE(lines, 5u) << text;
  EXPECT_NE(text.find("2.0 MB of 4.0 MB"), std::string::npos) << text;
}

}  // namespace
}  // namespace fd
