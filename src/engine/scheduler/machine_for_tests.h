// Stands for model, cache and device in tests of the scheduler: remembers what lies in every page and in
// every row of the encoder slab, and draws each token from all that comes before it. A wrong page, position,
// chunk, picture slice or order changes what is drawn.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"

namespace fd {

inline constexpr int32_t kMachineVocab = 300;

inline uint64_t Mix(uint64_t h, uint64_t value) {
  h = (h ^ value) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

// What keys and values stand for here: all tokens, positions and pictures up to this one.
inline uint64_t NextValue(uint64_t before, int32_t token, std::array<int32_t, 3> position, bool vision,
                          uint64_t media) {
  uint64_t value = Mix(before, static_cast<uint64_t>(token));
  for (int32_t axis : position) value = Mix(value, static_cast<uint64_t>(axis));
  return Mix(Mix(value, vision), media);
}

inline uint64_t MediaRowValue(const MediaItem& item, int64_t row) {
  return Mix(item.content_hash.low, static_cast<uint64_t>(row) + 1);
}

inline int32_t Drawn(uint64_t value, uint64_t seed) {
  return static_cast<int32_t>(Mix(value, seed) % kMachineVocab);
}

// What penalties know of a sequence: which tokens the prompt has, and how often each was generated.
struct Record {
  std::set<int32_t> prompt;
  uint64_t outputs = 0;  // of a multiset: the order does not matter

  void Enter(int32_t token, bool in_prompt) {
    if (in_prompt) {
      prompt.insert(token);
    } else {
      outputs += Mix(5, static_cast<uint64_t>(token));
    }
  }
  uint64_t Hash() const {
    uint64_t hash = outputs;
    for (int32_t token : prompt) hash = Mix(hash, static_cast<uint64_t>(token));
    return hash;
  }
};

// Pages, slab and what a step does to them.
class Machine {
 public:
  explicit Machine(const EngineOptions& options)
      : pages_(static_cast<size_t>(options.num_kv_pages)),
        host_pages_(static_cast<size_t>(options.num_host_pages)),
        slab_(static_cast<size_t>(options.EncoderSlabTokens())),
        records_(static_cast<size_t>(options.MaxStepSequences())) {}

  // What the sequences that sample draw, in the order of the plan.
  std::vector<StepResult::Token> Run(const StepPlan& plan) {
    for (const PageMove& move : plan.page_moves) PageAt(move.to) = PageAt(move.from);
    std::set<int64_t> encoded;
    for (const MediaEncode& encode : plan.encodes) {
      for (int64_t row = 0; row < encode.item->num_tokens; ++row) {
        EXPECT_TRUE(encoded.insert(encode.slab_row + row).second) << "two encoder outputs on one row";
        slab_.at(static_cast<size_t>(encode.slab_row + row)) = MediaRowValue(*encode.item, row);
      }
    }
    std::vector<StepResult::Token> drawn;
    std::vector<int32_t> rows;
    for (const SequenceStep& step : plan.sequences) {
      const auto count = std::ssize(step.token_ids);
      const int64_t begin = step.context_tokens - count;
      std::vector<uint64_t> media(static_cast<size_t>(count), 0);
      for (const MediaSlice& slice : step.media) {
        for (int64_t i = 0; i < slice.count; ++i) {
          uint64_t& row = media.at(static_cast<size_t>(slice.row_begin + i));
          EXPECT_EQ(row, 0u) << "two slices on one row";
          row = slab_.at(static_cast<size_t>(slice.slab_row + slice.media_begin + i));
        }
      }
      // Attention reads all pages: each must go on where the one before ends.
      uint64_t value = 0;
      for (int64_t n = 0; n < begin; n += kKvPageTokens) {
        const Page& page = pages_[At(step.block_table.at(static_cast<size_t>(n / kKvPageTokens)))];
        const int64_t last = std::min(begin - n, kKvPageTokens) - 1;
        EXPECT_EQ(page.before, value) << "request " << step.request_id << " reads a foreign page";
        value = page.values[static_cast<size_t>(last)];
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t n = begin + i;
        Page& page = pages_[At(step.block_table.at(static_cast<size_t>(n / kKvPageTokens)))];
        if (n % kKvPageTokens == 0) page.before = value;
        const auto at = [&](int64_t axis) { return step.positions[static_cast<size_t>(axis * count + i)]; };
        const bool vision = !step.vision_expert.empty() && step.vision_expert[static_cast<size_t>(i)] != 0;
        value =
            NextValue(value, TokenOf(step, i), {at(0), at(1), at(2)}, vision, media[static_cast<size_t>(i)]);
        page.values[static_cast<size_t>(n % kKvPageTokens)] = value;
      }
      const Record* record = Enter(step);
      if (!step.samples) continue;
      EXPECT_EQ(step.sample_position, step.context_tokens);
      const int32_t token = Drawn(record == nullptr ? value : Mix(value, record->Hash()), step.seed);
      rows.push_back(token);
      drawn.push_back({step.request_id, token, 0.0f, {}});
    }
    EXPECT_EQ(std::ssize(rows), plan.num_outputs);
    last_rows_ = std::move(rows);
    return drawn;
  }
  // What a failed step leaves: nothing that may be believed.
  void Scramble() {
    for (auto* pages : {&pages_, &host_pages_}) {
      for (Page& page : *pages) page.values.fill(666);
    }
  }

 private:
  int32_t TokenOf(const SequenceStep& step, int64_t i) const {
    const bool drawn = i + 1 == std::ssize(step.token_ids) && step.last_token_from_row >= 0;
    return drawn ? last_rows_.at(static_cast<size_t>(step.last_token_from_row))
                 : step.token_ids[static_cast<size_t>(i)];
  }
  // Null for a sequence without penalties.
  const Record* Enter(const SequenceStep& step) {
    if (!step.controls || step.controls->seen_slot < 0) return nullptr;
    const SequenceControls& c = *step.controls;
    Record& record = records_.at(static_cast<size_t>(c.seen_slot));
    if (c.reset_seen) record = {};
    for (int64_t i = 0; i < std::ssize(c.found_ids); ++i) {
      record.Enter(c.found_ids[static_cast<size_t>(i)], i < c.found_prompt);
    }
    for (int64_t i = c.enter_begin; i < std::ssize(step.token_ids); ++i) {
      record.Enter(TokenOf(step, i), i - c.enter_begin < c.enter_prompt);
    }
    return &record;
  }

  struct Page {
    uint64_t before = 0;
    std::array<uint64_t, kKvPageTokens> values{};
  };
  size_t At(int32_t page) const {
    FD_CHECK(page >= 0 && page < std::ssize(pages_));
    return static_cast<size_t>(page);
  }
  Page& PageAt(const PagePlace& place) {
    if (!place.on_host) return pages_[At(place.page)];
    FD_CHECK(place.page >= 0 && place.page < std::ssize(host_pages_));
    return host_pages_[static_cast<size_t>(place.page)];
  }
  std::vector<Page> pages_, host_pages_;
  std::vector<uint64_t> slab_;
  std::vector<Record> records_;
  std::vector<int32_t> last_rows_;
};

// What a request draws alone, computed without scheduler or cache. end_token: the last one; -1: none ends it.
inline std::vector<int32_t> Alone(const GenerateRequest& request, int32_t end_token = -1) {
  uint64_t value = 0;
  const auto prompt = std::ssize(request.token_ids);
  std::vector<int32_t> out;
  Record record;
  for (int64_t n = 0;; ++n) {
    const bool in_prompt = n < prompt;
    const auto at = [&](int64_t axis) {
      if (!in_prompt) return static_cast<int32_t>(n + request.position_delta);
      if (request.positions.empty()) return static_cast<int32_t>(n);
      return request.positions[static_cast<size_t>(axis * prompt + n)];
    };
    uint64_t media = 0;
    for (const auto& item : request.media) {
      if (n >= item->first_token && n < item->first_token + item->num_tokens) {
        media = MediaRowValue(*item, n - item->first_token);
      }
    }
    const int32_t token = in_prompt ? request.token_ids[static_cast<size_t>(n)] : out.back();
    const bool vision =
        in_prompt && !request.vision_expert.empty() && request.vision_expert[static_cast<size_t>(n)] != 0;
    value = NextValue(value, token, {at(0), at(1), at(2)}, vision, media);
    record.Enter(token, in_prompt);
    if (n + 1 < prompt) continue;
    const bool penalised = request.sampling.HasPenalties();
    out.push_back(Drawn(penalised ? Mix(value, record.Hash()) : value, request.sampling.seed));
    if (out.back() == end_token || std::ssize(out) == request.sampling.max_tokens) return out;
  }
}

}  // namespace fd
