#include "server/multimodal/video/protocol.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/strings.h"

namespace fd {
namespace {

constexpr MediaParser::Limits kLimits = {.max_frame_pixels = 100, .max_side_pixels = 50, .max_frames = 4};

VideoInfo Info(int64_t width = 3, int64_t height = 2, int64_t total = 10, double duration_s = 5,
               int64_t frames = 2) {
  return {width, height, total, duration_s, frames};
}

std::string Frame(int64_t index, int64_t width = 3, int64_t height = 2) {
  std::string out = EncodeMediaFrame(index, width, height);
  out.append(static_cast<size_t>(width * height * 3), static_cast<char>('a' + index));
  return out;
}

struct Outcome {
  Status status;
  bool finished = false;
  std::vector<VideoInfo> infos;
  std::vector<VideoFrame> frames;
  size_t largest_space = 0;
};

// Feeds `bytes` in pieces of at most `step`; ends at the first error.
Outcome Parse(std::string_view bytes, size_t step = 1 << 20, Status from_frame = {}) {
  Outcome out;
  MediaParser parser(
      kLimits,
      [&](const VideoInfo& info) {
        out.infos.push_back(info);
        return OkStatus();
      },
      [&](VideoFrame&& frame) {
        out.frames.push_back(std::move(frame));
        return from_frame;
      });
  while (!bytes.empty() && !parser.finished() && out.status.ok()) {
    const std::span<uint8_t> space = parser.Space();
    EXPECT_FALSE(space.empty());
    out.largest_space = std::max(out.largest_space, space.size());
    const size_t count = std::min({bytes.size(), step, space.size()});
    std::memcpy(space.data(), bytes.data(), count);
    bytes.remove_prefix(count);
    out.status = parser.Filled(count);
  }
  out.finished = parser.finished();
  return out;
}

TEST(MediaParser, ReadsAWholeVideoInPiecesOfAnySize) {
  const std::string bytes =
      EncodeMediaInfo(Info()) + Frame(0) + Frame(4) + EncodeMediaEnd() + "what follows is not read";
  for (size_t step : {1, 2, 3, 7, 16, 1000}) {
    const Outcome out = Parse(bytes, step);
    ASSERT_TRUE(out.status.ok()) << out.status.message();
    EXPECT_TRUE(out.finished);
    ASSERT_EQ(out.infos.size(), 1u);
    EXPECT_EQ(out.infos[0].total_frames, 10);
    ASSERT_EQ(out.frames.size(), 2u);
    EXPECT_EQ(out.frames[1].index, 4);
    EXPECT_EQ(out.frames[1].time_s, 2.0);
    EXPECT_EQ(out.frames[1].image.width, 3);
    EXPECT_EQ(out.frames[1].image.height, 2);
    EXPECT_EQ(out.frames[1].image.pixels, std::vector<uint8_t>(18, 'e'));
  }
}

TEST(MediaParser, HandsOnErrorsPrintableAndBounded) {
  const Outcome out =
      Parse(EncodeMediaError(MediaFault::kVideo, std::string("bad\x1b[31m \x00 \xff at 0x1", 16)));
  EXPECT_EQ(out.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(out.status.message(), "bad?[31m ? ? at ");
  EXPECT_EQ(Parse(EncodeMediaError(MediaFault::kMachine, "no seccomp")).status.code(),
            StatusCode::kUnavailable);
  EXPECT_EQ(Parse(EncodeMediaError(MediaFault::kVideo, std::string(5000, 'x'))).status.message(),
            std::string(kMaxMediaErrorBytes, 'x'));
  // Also between frames.
  EXPECT_EQ(Parse(EncodeMediaInfo(Info()) + Frame(0) + EncodeMediaError(MediaFault::kVideo, "cut off"))
                .status.message(),
            "cut off");
}

TEST(MediaParser, ReturnsWhatACallbackReturns) {
  const Outcome out = Parse(EncodeMediaInfo(Info()) + Frame(0), 1000, InvalidArgument("enough"));
  EXPECT_EQ(out.status.message(), "enough");
}

std::string Raw(uint32_t type, uint32_t zero, uint64_t size) {
  std::string out(16, '\0');
  std::memcpy(out.data(), &type, 4);
  std::memcpy(out.data() + 4, &zero, 4);
  std::memcpy(out.data() + 8, &size, 8);
  return out;
}

TEST(MediaParser, RefusesEveryBreachBeforeItAllocates) {
  const std::string info = EncodeMediaInfo(Info());
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  const std::vector<std::pair<std::string, std::string>> cases = {
      {Raw(0, 0, 0), "unknown type"},
      {Raw(5, 0, 0), "unknown type"},
      {Raw(1, 7, 40), "malformed header"},
      {Raw(1, 0, 41), "description of a wrong length"},
      {Raw(3, 0, ~0ull), "error of a wrong length"},
      {Raw(3, 0, 0), "error of a wrong length"},
      {Raw(4, 0, 1), "end with a payload"},
      {EncodeMediaEnd(), "before all frames"},
      {Frame(0), "before the description"},
      {info + info, "two descriptions"},
      {info + EncodeMediaEnd(), "before all frames"},
      {info + Raw(2, 0, ~0ull), "frame of a wrong length"},
      {info + Raw(2, 0, 24), "frame of a wrong length"},
      {info + Frame(0, 2, 3), "another size"},
      {info + Frame(0, 3, 3), "wrong length"},
      {info + Frame(10), "out of order"},
      {info + Frame(-1), "out of order"},
      {info + Frame(3) + Frame(3), "out of order"},
      {info + Frame(3) + Frame(1), "out of order"},
      {info + Frame(1) + Frame(2) + Frame(3), "more frames"},
      {EncodeMediaInfo(Info(0, 2)), "frame size"},
      {EncodeMediaInfo(Info(-3, -2)), "frame size"},
      {EncodeMediaInfo(Info(51, 1)), "frame size"},
      {EncodeMediaInfo(Info(1, 51)), "frame size"},
      {EncodeMediaInfo(Info(11, 10)), "frame size"},
      {EncodeMediaInfo(Info(kHuge, kHuge)), "frame size"},
      {EncodeMediaInfo(Info(3, 2, 0)), "number of frames"},
      {EncodeMediaInfo(Info(3, 2, kHuge)), "number of frames"},
      {EncodeMediaInfo(Info(3, 2, 10, -1)), "duration"},
      {EncodeMediaInfo(Info(3, 2, 10, std::numeric_limits<double>::quiet_NaN())), "duration"},
      {EncodeMediaInfo(Info(3, 2, 10, std::numeric_limits<double>::infinity())), "duration"},
      {EncodeMediaInfo(Info(3, 2, 10, 5, 0)), "sampled frames"},
      {EncodeMediaInfo(Info(3, 2, 10, 5, 5)), "sampled frames"},
      {EncodeMediaInfo(Info(3, 2, 1, 5, 2)), "sampled frames"},
  };
  for (const auto& [bytes, reason] : cases) {
    const Outcome out = Parse(bytes);
    EXPECT_EQ(out.status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(out.status.message().find(reason), std::string::npos) << reason << ": " << out.status.message();
    EXPECT_FALSE(out.finished);
    EXPECT_LE(out.largest_space, 8 + kMaxMediaErrorBytes);
  }
}

TEST(MediaParser, EveryBeginningOfAStreamIsUnfinished) {
  const std::string bytes = EncodeMediaInfo(Info()) + Frame(0) + Frame(4) + EncodeMediaEnd();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Outcome out = Parse(std::string_view(bytes).substr(0, size));
    EXPECT_TRUE(out.status.ok());
    EXPECT_FALSE(out.finished);
  }
}

TEST(MediaArguments, ReturnExactly) {
  VideoJob options;
  options.sampling = {.fps = 1.0 / 3,
                      .min_frames = 3,
                      .max_frames = 99,
                      .target_frames = -1,
                      .frames_sample = FramesSample::kRandom,
                      .seed = ~0ull};
  options.max_frame_pixels = 123456789;
  options.max_side_pixels = 8192;
  options.memory_bytes = int64_t{1} << 40;
  options.timeout_s = 0.1;
  const std::vector<std::string> arguments = MediaArguments(options);
  const std::vector<std::string_view> views(arguments.begin(), arguments.end());
  const auto parsed = ParseMediaArguments(views);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(MediaArguments(*parsed), arguments);
  EXPECT_EQ(parsed->sampling.fps, 1.0 / 3);
  EXPECT_EQ(parsed->sampling.seed, ~0ull);

  EXPECT_FALSE(ParseMediaArguments({}).has_value());
  for (size_t i = 0; i < views.size(); ++i) {
    std::vector<std::string_view> changed = views;
    changed[i] = "x";
    EXPECT_FALSE(ParseMediaArguments(changed).has_value()) << i;
    changed.erase(changed.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_FALSE(ParseMediaArguments(changed).has_value()) << i;
  }
}

}  // namespace
}  // namespace fd
