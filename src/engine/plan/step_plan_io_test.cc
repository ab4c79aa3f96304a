#include "engine/plan/step_plan_io.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fd {
namespace {

EngineOptions Limits() {
  EngineOptions o;
  o.max_model_len = 4096;
  o.max_num_seqs = 4;
  return o;
}

std::shared_ptr<const MediaItem> Picture(uint64_t id) {
  auto item = std::make_shared<MediaItem>();
  item->content_hash = {id, ~id};
  item->grid_h = 2;
  item->grid_w = 4;
  item->patch_rows.assign(8 * 588, static_cast<uint8_t>(id));
  item->first_token = 3;
  item->num_tokens = 2;
  return item;
}

// Every field is another one than its default.
StepPlan FullPlan() {
  StepPlan p;
  p.step = int64_t{1} << 40;
  p.num_tokens = 3;
  p.num_outputs = 1;
  p.num_decodes = 1;
  p.page_moves = {{{3}, {4}}, {{5, true}, {6}}};
  p.encodes = {{Picture(7), 9}, {Picture(8), 11}};
  p.encode_tokens = 4;
  p.encoder_hits = 1;
  p.encoder_hit_tokens = 2;
  p.encoder_kept_tokens = 3;
  p.prefix_queries = 4;
  p.prefix_hits = 5;
  p.prefix_query_tokens = 6;
  p.prefix_hit_tokens = 7;
  p.prefix_host_hit_tokens = 6;
  SequenceStep s;
  s.request_id = ~uint64_t{0};
  s.token_ids = {1, 2, 3};
  s.last_token_from_row = 0;
  s.positions = {0, 1, 2, -5, 1 << 30, 2, 0, 1, 2};
  s.vision_expert = {0, 1, 0};
  s.context_tokens = 130;
  s.block_table = {10, 7, 1 << 24};
  s.media = {{9, 1, 0, 1}, {11, 0, 2, 1}};
  s.score_begin = 1;
  s.score_ids = {2, 9};
  s.score_top = 3;
  s.samples = true;
  s.sum_slot = 2;
  s.temperature = 0.7f;
  s.top_k = 40;
  s.top_p = 0.9f;
  s.min_p = 0.05f;
  s.seed = uint64_t{1} << 63;
  s.sample_position = 130;
  SequenceControls c;
  c.seen_slot = 1;
  c.reset_seen = true;
  c.enter_begin = 1;
  c.enter_prompt = 2;
  c.found_ids = {5, 6, 7};
  c.found_prompt = 2;
  c.repetition_penalty = 1.1f;
  c.presence_penalty = -0.5f;
  c.frequency_penalty = 0.25f;
  c.biases = {{3, -100.0f}, {4, 1.5f}};
  c.bans = {{5, -1}, {6, 7}};
  c.allowed = {1, 3, 5};
  c.top_logprobs = 5;
  c.temp_scaled_logprobs = true;
  c.top_p_normalized_logprobs = true;
  s.controls = c;
  p.sequences = {s, s};
  p.sequences[1].request_id = 5;
  p.sequences[1].controls.reset();
  return p;
}

PlanReader::MediaOf AnyPicture() {
  return [](const Hash128& hash) { return Picture(hash.low); };
}

std::string BytesOf(const StepPlan& plan) {
  std::string bytes;
  PlanWriter().Write(plan, &bytes);
  return bytes;
}

TEST(StepPlanIo, EveryFieldOfAPlan) {
  const StepPlan plan = FullPlan();
  const std::string bytes = BytesOf(plan);
  StatusOr<StepPlan> read = PlanReader(Limits(), AnyPicture()).Read(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(BytesOf(*read), bytes);
  // What was read is what was written, not only what a reader makes of it: a few of each kind.
  ASSERT_EQ(read->sequences.size(), 2u);
  const SequenceStep& s = read->sequences[0];
  EXPECT_EQ(read->step, plan.step);
  EXPECT_EQ(read->page_moves[1].from, (PagePlace{5, true}));
  EXPECT_EQ(read->page_moves[1].to, (PagePlace{6}));
  EXPECT_EQ(read->encodes[1].item->content_hash, (Hash128{8, ~uint64_t{8}}));
  EXPECT_EQ(read->encodes[1].slab_row, 11);
  EXPECT_EQ(s.positions, plan.sequences[0].positions);
  EXPECT_EQ(s.block_table, plan.sequences[0].block_table);
  EXPECT_EQ(s.seed, uint64_t{1} << 63);
  EXPECT_EQ(s.temperature, 0.7f);
  EXPECT_EQ(s.media[1].row_begin, 2);
  ASSERT_TRUE(s.controls.has_value());
  EXPECT_EQ(s.controls->biases[1], (std::pair<int32_t, float>(4, 1.5f)));
  EXPECT_EQ(s.controls->bans[1].after, 7);
  EXPECT_TRUE(s.controls->top_p_normalized_logprobs);
  EXPECT_FALSE(read->sequences[1].controls.has_value());
  EXPECT_EQ(read->prefix_hit_tokens, 7);
}

TEST(StepPlanIo, BlockTablesGrowFromPlanToPlan) {
  PlanWriter writer;
  PlanReader reader(Limits(), AnyPicture());
  const std::vector<std::vector<int32_t>> tables = {std::vector<int32_t>(60, 7),
                                                    std::vector<int32_t>(60, 7),
                                                    std::vector<int32_t>(61, 7),
                                                    {7, 7, 8},
                                                    {9},
                                                    {9, 1}};
  std::vector<size_t> sizes;
  for (size_t i = 0; i < tables.size(); ++i) {
    StepPlan plan;
    for (uint64_t id = 0; id < 2; ++id) {
      SequenceStep s;
      s.request_id = id;
      s.block_table = tables[i];
      if (id == 1 && i == 4) continue;  // it pauses, and is forgotten
      plan.sequences.push_back(s);
    }
    std::string bytes;
    writer.Write(plan, &bytes);
    sizes.push_back(bytes.size());
    StatusOr<StepPlan> read = reader.Read(bytes);
    ASSERT_TRUE(read.ok()) << read.status().message();
    for (const SequenceStep& s : read->sequences) EXPECT_EQ(s.block_table, tables[i]);
  }
  EXPECT_LT(sizes[1] + 100, sizes[0]);  // a table that is known takes two bytes
}

TEST(StepPlanIo, EveryFieldOfAResult) {
  StepResult r;
  r.step = 12;
  r.tokens = {{3, 17, -0.25f, {{17, -0.25f}, {4, -INFINITY}}, {}},
              {4, -1, std::nanf("5"), {}, {1.5f, -2.5f}}};
  r.scores = {{3, {{5, -1.0f, 2, {{9, -0.5f}}}}}};
  r.status = Unavailable("the device is lost");
  r.device_lost = true;
  std::string bytes, again;
  WriteResult(r, &bytes);
  StatusOr<StepResult> read = ReadResult(bytes);
  ASSERT_TRUE(read.ok()) << read.status().message();
  WriteResult(*read, &again);
  EXPECT_EQ(again, bytes);
  EXPECT_EQ(read->status.message(), "the device is lost");
  EXPECT_EQ(read->status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(read->tokens[0].top_logprobs[1].logprob, -INFINITY);
  EXPECT_EQ(read->tokens[1].embedding[1], -2.5f);
  EXPECT_EQ(read->scores[0].prompt_logprobs[0].rank, 2);
  EXPECT_TRUE(read->device_lost);
}

TEST(StepPlanIo, PicturesAndLimits) {
  std::string bytes, again;
  WriteMedia(*Picture(3), &bytes);
  StatusOr<MediaItem> item = ReadMedia(bytes);
  ASSERT_TRUE(item.ok());
  WriteMedia(*item, &again);
  EXPECT_EQ(again, bytes);
  EXPECT_EQ(item->patch_rows.size(), 8u * 588);

  EngineOptions o = Limits();
  o.pooling = PoolingType::kMean;
  o.logprobs_mode = LogprobsMode::kProcessedLogits;
  o.overlap = true;
  o.max_waiting_s = 1.5;
  bytes.clear();
  again.clear();
  WriteOptions(o, &bytes);
  StatusOr<EngineOptions> options = ReadOptions(bytes);
  ASSERT_TRUE(options.ok()) << options.status().message();
  WriteOptions(*options, &again);
  EXPECT_EQ(again, bytes);
  EXPECT_EQ(options->pooling, PoolingType::kMean);
  EXPECT_EQ(options->max_waiting_s, 1.5);
}

// Cut or changed anywhere: an error or a plan, never more.
TEST(StepPlanIo, WrongBytes) {
  const std::string bytes = BytesOf(FullPlan());
  for (size_t cut = 0; cut < bytes.size(); ++cut)
    EXPECT_FALSE(PlanReader(Limits(), AnyPicture()).Read(std::string_view(bytes).substr(0, cut)).ok()) << cut;
  EXPECT_FALSE(PlanReader(Limits(), AnyPicture()).Read(bytes + '\0').ok());
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const char value : {'\0', '\x7f', '\xff'}) {
      std::string changed = bytes;
      changed[at] = value;
      const StatusOr<StepPlan> read = PlanReader(Limits(), AnyPicture()).Read(changed);
      EXPECT_TRUE(read.ok() || !read.status().message().empty());
    }
  }
  const auto no_picture = [](const Hash128&) { return std::shared_ptr<const MediaItem>(); };
  const StatusOr<StepPlan> lost = PlanReader(Limits(), no_picture).Read(bytes);
  ASSERT_FALSE(lost.ok());
  EXPECT_NE(lost.status().message().find("picture"), std::string::npos);
  EngineOptions one = Limits();
  one.max_num_seqs = 1;
  EXPECT_FALSE(PlanReader(one, AnyPicture()).Read(bytes).ok());
  one = Limits();
  one.max_model_len = 64;
  EXPECT_FALSE(PlanReader(one, AnyPicture()).Read(bytes).ok());
}

}  // namespace
}  // namespace fd
