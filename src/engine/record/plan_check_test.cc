#include "engine/record/plan_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/fake_model.h"

namespace fd {
namespace {

EngineOptions Limits() {
  EngineOptions o;
  o.max_model_len = 1024;
  o.max_num_seqs = 2;
  o.max_num_batched_tokens = 64;
  o.num_kv_pages = 10;
  o.num_host_pages = 3;
  o.max_media_tokens = 16;
  o.encoder_cache_tokens = 100;
  return o;
}

StepPlan GoodPlan() {
  auto item = std::make_shared<MediaItem>();
  item->grid_h = 2;
  item->grid_w = 4;
  item->patch_rows.assign(8 * 588, 1);
  item->num_tokens = 2;
  StepPlan p;
  p.num_tokens = 4;
  p.num_outputs = 1;
  p.page_moves = {{{3}, {4}}, {{2, true}, {5}}};
  p.encodes = {{item, 9}, {item, 11}};
  SequenceStep s;
  s.token_ids = {1, 2, 3, 4};
  s.positions.assign(12, 5);
  s.vision_expert = {0, 1, 1, 0};
  s.context_tokens = 130;
  s.block_table = {1, 7, 9};
  s.media = {{9, 0, 1, 2}};
  s.score_begin = 1;
  s.score_ids = {2, 9};
  s.samples = true;
  s.controls.emplace();
  s.controls->seen_slot = 1;
  s.controls->reset_seen = true;
  s.controls->enter_prompt = 4;
  s.controls->found_ids = {5, 6};
  s.controls->found_prompt = 2;
  s.controls->biases = {{3, 1.0f}};
  s.controls->bans = {{5, 6}};
  s.controls->allowed = {1, 3};
  p.sequences = {s};
  return p;
}

TEST(PlanCheck, EverythingThatAnExecutorTakesOnTrust) {
  const Status good = CheckPlan(GoodPlan(), 0, FakeConfig(), Limits());
  ASSERT_TRUE(good.ok()) << good.message();
  using Change = std::function<void(StepPlan&, SequenceStep&, SequenceControls&)>;
#define FD_CHANGE(code) \
  {#code, [](StepPlan& p, SequenceStep& s, SequenceControls& c) { (void)p, (void)s, (void)c, code; }}
  const std::pair<const char*, Change> changes[] = {
      FD_CHANGE(p.sequences.clear()),
      FD_CHANGE((p.sequences.resize(3, p.sequences[0]), p.num_tokens = 12, p.num_outputs = 3)),
      FD_CHANGE(p.num_tokens = 5),
      FD_CHANGE(p.num_outputs = 0),
      FD_CHANGE(p.num_decodes = 2),
      FD_CHANGE(p.page_moves[0].to.page = 10),
      FD_CHANGE(p.page_moves[0].from.page = -1),
      FD_CHANGE(p.page_moves[1].from.page = 3),
      FD_CHANGE((p.page_moves[1].to = {1, true})),
      FD_CHANGE(p.encodes[1].slab_row = 10),
      FD_CHANGE(p.encodes[1].slab_row = 99),
      FD_CHANGE(p.encodes[1].slab_row = -1),
      FD_CHANGE(p.encodes[1].item = nullptr),
      FD_CHANGE(s.token_ids[2] = 101),
      FD_CHANGE(s.token_ids[2] = -1),
      FD_CHANGE((s.token_ids.clear(), p.num_tokens = 0)),
      FD_CHANGE(s.last_token_from_row = 0),
      FD_CHANGE(s.last_token_from_row = -2),
      FD_CHANGE(s.positions.pop_back()),
      FD_CHANGE(s.vision_expert.pop_back()),
      FD_CHANGE(s.vision_expert[0] = 2),
      FD_CHANGE(s.context_tokens = 3),
      FD_CHANGE(s.context_tokens = 128),
      FD_CHANGE(s.context_tokens = 1025),
      FD_CHANGE(s.block_table[2] = 10),
      FD_CHANGE(s.block_table[0] = -1),
      FD_CHANGE(s.media[0].count = 4),
      FD_CHANGE(s.media[0].count = 0),
      FD_CHANGE(s.media[0].row_begin = -1),
      FD_CHANGE(s.media[0].slab_row = 99),
      FD_CHANGE(s.media[0].media_begin = int64_t{1} << 62),
      FD_CHANGE(s.media.push_back(s.media[0])),
      FD_CHANGE(s.score_begin = 3),
      FD_CHANGE(s.score_begin = -1),
      FD_CHANGE(s.score_ids[0] = 101),
      FD_CHANGE(s.score_top = 21),
      FD_CHANGE(s.temperature = NAN),
      FD_CHANGE(s.temperature = -1),
      FD_CHANGE(s.top_k = -1),
      FD_CHANGE(s.top_p = 0),
      FD_CHANGE(s.top_p = NAN),
      FD_CHANGE(s.min_p = 2),
      FD_CHANGE(c.seen_slot = 2),
      FD_CHANGE(c.seen_slot = -1),
      FD_CHANGE(c.enter_begin = 5),
      FD_CHANGE(c.enter_begin = 1),
      FD_CHANGE(c.enter_prompt = -1),
      FD_CHANGE(c.found_prompt = 3),
      FD_CHANGE(c.found_ids[1] = -3),
      FD_CHANGE(c.found_ids.resize(1025)),
      FD_CHANGE(c.biases[0].first = 101),
      FD_CHANGE(c.biases.resize(1025)),
      FD_CHANGE(c.bans.resize(1025)),
      FD_CHANGE(c.bans[0].after = -2),
      FD_CHANGE((c.allowed = {3, 1})),
      FD_CHANGE(c.allowed[1] = 101),
      FD_CHANGE(c.top_logprobs = 21),
  };
  for (const auto& [what, change] : changes) {
    StepPlan plan = GoodPlan();
    change(plan, plan.sequences[0], *plan.sequences[0].controls);
    const Status status = CheckPlan(plan, 0, FakeConfig(), Limits());
    EXPECT_FALSE(status.ok()) << what;
    EXPECT_GT(status.message().size(), 20u) << what;
  }
#undef FD_CHANGE
  StepPlan next = GoodPlan();
  next.sequences[0].last_token_from_row = 1;
  EXPECT_TRUE(CheckPlan(next, 2, FakeConfig(), Limits()).ok());
}

TEST(PlanCheck, PicturesOfAnySize) {
  for (const auto& [t, h, w] : {std::tuple{0, 2, 4},
                                {1, 3, 4},
                                {3, 2, 2},
                                {1, -2, -4},
                                {1, 1 << 21, 2},
                                {1, 2, 1000},
                                {1 << 20, 1 << 20, 1 << 20}}) {
    auto item = std::make_shared<MediaItem>();
    item->grid_t = t;
    item->grid_h = h;
    item->grid_w = w;
    item->patch_rows.assign(8 * 588, 1);
    item->num_tokens = 2;
    StepPlan plan = GoodPlan();
    plan.encodes[0].item = item;
    EXPECT_FALSE(CheckPlan(plan, 0, FakeConfig(), Limits()).ok()) << t << " " << h << " " << w;
  }
  ModelConfig text = FakeConfig();
  text.vision.reset();
  EXPECT_FALSE(CheckPlan(GoodPlan(), 0, text, Limits()).ok());
}

}  // namespace
}  // namespace fd
