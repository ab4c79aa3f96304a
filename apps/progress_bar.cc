#include "progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/log.h"
#include "base/strings.h"

namespace fd {
namespace {
constexpr std::chrono::milliseconds kRedraw{50};
constexpr std::chrono::seconds kLogEvery{5};
constexpr int kWidth = 30;
}  // namespace

ProgressBar::ProgressBar(std::string what)
    : what_(std::move(what)),
      terminal_(isatty(STDERR_FILENO) == 1),
      begin_(std::chrono::steady_clock::now()),
      last_(begin_) {}

double ProgressBar::Seconds() const {
  return std::max(1e-6, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count());
}

void ProgressBar::Update(int64_t done_bytes, int64_t total_bytes) {
  done_bytes_ = done_bytes;
  total_bytes_ = total_bytes;
  auto now = std::chrono::steady_clock::now();
  bool complete = done_bytes >= total_bytes;
  if (terminal_ ? (drawn_ && now - last_ < kRedraw && !complete) : now - last_ < kLogEvery) return;
  last_ = now;
  double seconds = Seconds();
  double share = total_bytes > 0 ? std::min(1.0, static_cast<double>(done_bytes) / total_bytes) : 1.0;
  double rate = done_bytes / seconds;
  std::string numbers =
      StrCat(HumanBytes(done_bytes), " of ", HumanBytes(total_bytes), ", ", HumanBytes(rate), "/s");
  if (done_bytes > 0 && !complete) {
    numbers += StrCat(", ", Fixed((total_bytes - done_bytes) / rate, 0), " s left");
  }
  if (terminal_) {
    int filled = static_cast<int>(share * kWidth);
    std::string line =
        StrCat("\r\x1b[K", what_, " [", std::string(filled, '#'), std::string(kWidth - filled, '.'), "] ",
               Fixed(share * 100, 0), " %  ", numbers);
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
    drawn_ = true;
  } else {
    LogInfo(what_, ": ", Fixed(share * 100, 0), " %, ", numbers);
  }
}

void ProgressBar::Finish() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
  if (total_bytes_ > 0) {
    double seconds = Seconds();
    LogInfo(what_, ": ", HumanBytes(total_bytes_), " in ", Fixed(seconds, 2), " s, ",
            HumanBytes(total_bytes_ / seconds), "/s");
  }
}

}  // namespace fd
