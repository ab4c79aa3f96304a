#include "engine/scheduler/encoder_slots.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <vector>

namespace fd {
namespace {

Hash128 H(uint64_t n) { return {n, 0}; }

TEST(EncoderSlots, KeepsUntilRoomIsNeededLeastRecentlyUsedFirst) {
  EncoderSlots slots(30);
  slots.BeginStep();
  EXPECT_EQ(slots.Allocate(H(1), 10), 0);
  EXPECT_EQ(slots.Allocate(H(2), 10), 10);
  EXPECT_EQ(slots.Allocate(H(3), 10), 20);
  slots.BeginStep();
  EXPECT_EQ(slots.Use(H(1)), 0);
  slots.BeginStep();
  EXPECT_EQ(slots.Allocate(H(4), 10), 10);  // where 2 was
  EXPECT_FALSE(slots.Use(H(2)).has_value());
  EXPECT_EQ(slots.Use(H(1)), 0);
  EXPECT_EQ(slots.Use(H(3)), 20);
  EXPECT_EQ(slots.kept_tokens(), 30);
  slots.CheckAccounting();
}

TEST(EncoderSlots, WhatTheStepUsesAndWhatIsPinnedStays) {
  EncoderSlots slots(20);
  slots.BeginStep();
  ASSERT_TRUE(slots.Allocate(H(1), 8));
  ASSERT_TRUE(slots.Allocate(H(2), 8));
  EXPECT_FALSE(slots.Allocate(H(3), 8));  // all of this step
  slots.Pin(H(1));
  slots.BeginStep();
  EXPECT_FALSE(slots.Allocate(H(3), 13));    // 12 rows behind the pinned one
  EXPECT_TRUE(slots.Use(H(2)).has_value());  // and nothing was dropped in vain
  slots.BeginStep();
  EXPECT_EQ(slots.Allocate(H(3), 12), 8);
  slots.BeginStep();
  slots.Unpin(H(1));
  EXPECT_EQ(slots.Allocate(H(4), 20), 0);
  EXPECT_FALSE(slots.Allocate(H(5), 21));
  slots.CheckAccounting();
}

// Rows 0-9 1, 10-19 2, 20-29 3, 30-39 4; the newest neighbour of the oldest decides.
TEST(EncoderSlots, DropsTheStretchThatWasUsedLongestAgoAndNothingElse) {
  EncoderSlots slots(40);
  slots.BeginStep();
  for (uint64_t n = 1; n <= 4; ++n) ASSERT_TRUE(slots.Allocate(H(n), 10));
  for (uint64_t n : {1, 3, 4, 2}) {  // 1 oldest, 2 newest
    slots.BeginStep();
    ASSERT_TRUE(slots.Use(H(n)));
  }
  slots.BeginStep();
  EXPECT_EQ(slots.Allocate(H(5), 15), 20);  // 3 and 4, not 1 and 2
  EXPECT_TRUE(slots.Use(H(1)));
  EXPECT_TRUE(slots.Use(H(2)));
  slots.CheckAccounting();
}

TEST(EncoderSlots, KeepsNothing) {
  EncoderSlots slots(20);
  slots.BeginStep();
  ASSERT_TRUE(slots.Allocate(H(1), 8));
  ASSERT_TRUE(slots.Allocate(H(2), 8));
  slots.Pin(H(2));
  slots.DropUnpinned();
  EXPECT_EQ(slots.kept_tokens(), 8);
  slots.CheckAccounting();
  slots.Unpin(H(2));
  slots.Clear();
  EXPECT_EQ(slots.kept_tokens(), 0);
  EXPECT_EQ(slots.pins(), 0);
  EXPECT_EQ(slots.Allocate(H(3), 20), 0);
  EncoderSlots none(0);
  EXPECT_FALSE(none.Allocate(H(1), 1));
  none.CheckAccounting();
}

// Against rows written down one by one: what Use gives is what Allocate gave, pinned and fresh rows are never
// given to another, and where a stretch of rows is long enough, room is found.
TEST(EncoderSlots, RandomUse) {
  int64_t evictions = 0, refused = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    std::mt19937 rng(seed);
    const int64_t capacity = 1 + rng() % 300;
    EncoderSlots slots(capacity);
    std::map<uint64_t, int64_t> tokens_of, begin_of, pins;
    std::map<uint64_t, int64_t> used_in;
    for (int64_t step = 1; step <= 300; ++step) {
      slots.BeginStep();
      for (int k = rng() % 6; k > 0; --k) {
        const uint64_t id = 1 + rng() % 30;
        if (!tokens_of.contains(id)) tokens_of[id] = 1 + rng() % 80;
        const int64_t tokens = tokens_of[id];
        if (const auto begin = slots.Use(H(id))) {
          ASSERT_EQ(*begin, begin_of[id]);
          used_in[id] = step;
        } else {
          ASSERT_EQ(pins[id], 0);
          // The longest stretch without fixed rows.
          std::vector<bool> fixed(capacity, false);
          for (const auto& [other, at] : begin_of) {
            if (pins[other] > 0 || used_in[other] == step)
              std::fill_n(fixed.begin() + at, tokens_of[other], true);
          }
          int64_t longest = 0, run = 0;
          for (bool f : fixed) longest = std::max(longest, run = f ? 0 : run + 1);
          const auto at = slots.Allocate(H(id), tokens);
          ASSERT_EQ(at.has_value(), longest >= tokens) << "seed " << seed << " step " << step;
          refused += !at;
          if (at) {
            ASSERT_LE(*at + tokens, capacity);
            for (int64_t r = *at; r < *at + tokens; ++r) ASSERT_FALSE(fixed[r]);
            for (auto it = begin_of.begin(); it != begin_of.end();) {  // whoever lay there is gone
              const bool hit = it->second < *at + tokens && *at < it->second + tokens_of[it->first];
              evictions += hit;
              it = hit ? begin_of.erase(it) : std::next(it);
            }
            begin_of[id] = *at;
            used_in[id] = step;
          }
        }
        if (begin_of.contains(id) && slots.Use(H(id)) && rng() % 4 == 0) {
          slots.Pin(H(id));
          ++pins[id];
        }
      }
      // What Allocate dropped beyond the overlap is unknown to the model: forget what is not there.
      for (auto it = begin_of.begin(); it != begin_of.end();) {
        if (pins[it->first] == 0 && used_in[it->first] != step && rng() % 8 == 0) {
          it = slots.Use(H(it->first)) ? std::next(it) : begin_of.erase(it);
        } else {
          ++it;
        }
      }
      for (auto& [id, count] : pins) {
        if (count > 0 && rng() % 3 == 0) {
          slots.Unpin(H(id));
          --count;
        }
      }
      slots.CheckAccounting();
    }
  }
  EXPECT_GT(evictions, 500);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace fd
