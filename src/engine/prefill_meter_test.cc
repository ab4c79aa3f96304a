#include "engine/prefill_meter.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

TEST(PrefillMeter, TheMeanOfWhatWasMeasured) {
  PrefillMeter meter;
  EXPECT_EQ(meter.MsOf(1000), 0);
  meter.Add(100, 0, 200, 0);
  EXPECT_DOUBLE_EQ(meter.MsOf(7), 14);
  meter.Add(300, 0, 200, 0);
  EXPECT_DOUBLE_EQ(meter.MsOf(4), 4);
}

TEST(PrefillMeter, DecodesAndPicturesTakeTheirPart) {
  PrefillMeter meter;
  meter.Add(90, 10, 250, 50);  // 200 ms for 100 tokens
  EXPECT_DOUBLE_EQ(meter.MsOf(3), 6);
  PrefillMeter late;
  late.Add(100, 0, 10, 20);  // two clocks may disagree
  EXPECT_EQ(late.MsOf(3), 0);
}

// A found prompt computes one token, which costs as much as reading the weights.
TEST(PrefillMeter, ShortChunksSayNothing) {
  PrefillMeter meter;
  meter.Add(1, 0, 100, 0);
  meter.Add(PrefillMeter::kLeastTokens - 1, 0, 100, 0);
  meter.Add(20, 21, 100, 0);
  EXPECT_EQ(meter.MsOf(1), 0);
}

}  // namespace
}  // namespace fd
