#include "engine/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "engine/scheduler/machine_for_tests.h"

namespace fd {
namespace {

constexpr int64_t kMediaTokens[] = {1, 7, 30, 61, 89, 90, 2, 12};
constexpr int64_t kAllMediaTokens = 292;

GenerateRequest RandomRequest(std::mt19937& rng, RequestId id, int64_t max_prompt, int64_t max_tokens) {
  GenerateRequest r;
  r.id = id;
  const int64_t prompt = 1 + rng() % max_prompt;
  for (int64_t i = 0; i < prompt; ++i) r.token_ids.push_back(rng() % 1000);
  r.sampling.max_tokens = 1 + rng() % max_tokens;
  r.sampling.seed = rng();
  if (rng() % 2 == 0) {  // as with pictures: positions of their own
    for (int64_t i = 0; i < 3 * prompt; ++i) r.positions.push_back(rng() % 5000);
    r.position_delta = -static_cast<int64_t>(rng() % 50);
    r.vision_expert.resize(prompt);
    for (int64_t at = rng() % 20; at < prompt;) {
      auto item = std::make_shared<MediaItem>();
      const uint64_t kind = rng() % std::size(kMediaTokens);  // few, so that sequences share pictures
      item->content_hash = {1 + kind, 0};
      item->first_token = at;
      item->num_tokens = kMediaTokens[kind];
      item->grid_t = kind % 2 == 0 ? 1 : 2;
      item->grid_h = 2;
      item->grid_w = static_cast<int32_t>(2 * item->num_tokens);
      if (at + item->num_tokens > prompt) break;
      std::fill_n(r.vision_expert.begin() + at, item->num_tokens, 1);
      at += item->num_tokens + rng() % 40;
      r.media.push_back(item);
    }
  }
  return r;
}

struct RunResult {
  std::map<RequestId, std::vector<int32_t>> output;
  int64_t steps = 0;
  int64_t preemptions = 0;
  int64_t encodes = 0;
  int64_t encoder_hits = 0;
  int64_t encoder_waits = 0;  // times that a sequence stood still before a picture, though the step had room
  int64_t room_waits = 0;     // of them, because the encoder slab had none
};

// Runs all requests, adding one whenever `arrivals` says so, and checks every plan on the way. overlap: a
// plan's tokens become known only after the next plan has been made.
RunResult RunAll(const EngineOptions& options, const std::vector<GenerateRequest>& requests,
                 std::mt19937* arrivals = nullptr, bool overlap = false) {
  Scheduler scheduler(options);
  Machine machine(options);
  RunResult result;
  size_t next = 0;
  std::vector<StepResult::Token> in_flight;
  auto publish = [&](const std::vector<StepResult::Token>& drawn) {
    for (const StepResult::Token& drawn_token : drawn) {
      const auto [id, token] = std::pair(drawn_token.request_id, drawn_token.token_id);
      Sequence* sequence = scheduler.Find(id);
      scheduler.Append(*sequence, token);
      result.output[id].push_back(token);
      if (sequence->generated_tokens() == sequence->request.sampling.max_tokens) scheduler.Remove(id);
    }
  };
  while (next < requests.size() || !scheduler.idle()) {
    while (next < requests.size() && (arrivals == nullptr || scheduler.idle() || (*arrivals)() % 3 == 0)) {
      scheduler.Add(requests[next++]);
    }
    const int64_t preemptions_before = scheduler.num_preemptions();
    StepPlan plan = scheduler.Schedule();
    // Nobody is admitted in the step that preempts.
    if (scheduler.num_preemptions() > preemptions_before) {
      EXPECT_GT(scheduler.num_preempted(), 0);
    } else if (preemptions_before == 0) {
      EXPECT_EQ(scheduler.num_preempted(), 0);
    }
    int64_t encode_work = 0, encode_tokens = 0;
    for (const MediaEncode& e : plan.encodes) {
      encode_work += e.item->EncodeTokens();
      encode_tokens += e.item->num_tokens;
    }
    EXPECT_EQ(encode_tokens, plan.encode_tokens);
    EXPECT_TRUE(encode_work <= options.max_encoder_batch_tokens || plan.encodes.size() == 1);
    result.encodes += static_cast<int64_t>(plan.encodes.size());
    result.encoder_hits += plan.encoder_hits;
    scheduler.encoder_slots().CheckAccounting();
    int64_t tokens = 0;
    bool prefill_seen = false;
    std::set<RequestId> ids;
    std::set<int32_t> pages;
    size_t page_count = 0;
    for (const SequenceStep& s : plan.sequences) {
      tokens += static_cast<int64_t>(s.token_ids.size());
      EXPECT_TRUE(ids.insert(s.request_id).second);
      EXPECT_EQ(static_cast<int64_t>(s.block_table.size()), PagesForTokens(s.context_tokens));
      pages.insert(s.block_table.begin(), s.block_table.end());
      page_count += s.block_table.size();
      bool decode = s.token_ids.size() == 1 && s.context_tokens > 1 && s.samples && s.media.empty();
      if (!decode) prefill_seen = true;
      EXPECT_FALSE(decode && prefill_seen) << "a decode behind a prefill";
      EXPECT_EQ(decode, static_cast<int32_t>(ids.size()) <= plan.num_decodes);
    }
    EXPECT_EQ(pages.size(), page_count) << "a page in two block tables";
    EXPECT_EQ(tokens, plan.num_tokens);
    EXPECT_LE(tokens, options.max_num_batched_tokens);
    EXPECT_LE(static_cast<int64_t>(plan.sequences.size()), options.MaxStepSequences());
    // Every running sequence advances in every step, but for those whose last token is on its way and
    // prefills that stand before a picture or find the step full.
    for (RequestId id : scheduler.RunningIds()) {
      const Sequence& s = *scheduler.Find(id);
      if (ids.contains(id) || s.AwaitsLastToken()) continue;
      const bool at_picture = s.next_media < static_cast<int64_t>(s.request.media.size()) &&
                              s.request.media[s.next_media]->first_token == s.computed_tokens;
      EXPECT_FALSE(s.IsDecode());
      EXPECT_TRUE(at_picture || plan.num_tokens == options.max_num_batched_tokens);
      if (!at_picture || plan.num_tokens == options.max_num_batched_tokens) continue;
      ++result.encoder_waits;
      result.room_waits +=
          encode_work + s.request.media[s.next_media]->EncodeTokens() <= options.max_encoder_batch_tokens;
    }
    scheduler.pages().CheckAccounting();
    if ((plan.sequences.empty() && in_flight.empty()) || ++result.steps > 2000000) {
      ADD_FAILURE() << "no progress";
      return result;
    }
    auto drawn = machine.Run(plan);
    if (overlap) std::swap(drawn, in_flight);
    publish(drawn);
  }
  StepPlan last = scheduler.Schedule();
  EXPECT_TRUE(last.sequences.empty());
  scheduler.CheckIdle();
  EXPECT_EQ(scheduler.pages().free_pages(), options.num_kv_pages);
  result.preemptions = scheduler.num_preemptions();
  return result;
}

EngineOptions Options(int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  o.max_media_tokens = 90;
  o.encoder_cache_tokens = 1000;
  o.prefix_caching = false;  // with it: random_workload_test
  return o;
}

TEST(CheckFits, NamesBothNumbers) {
  EngineOptions o = Options(8, 64, 100);
  o.max_model_len = 4096;
  EXPECT_TRUE(CheckFits(4000, 96, o).ok());
  Status s = CheckFits(4000, 97, o);
  EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(s.message().find("4097"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("4096"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("at most 96"), std::string::npos) << s.message();
  s = CheckFits(5000, 1, o);
  EXPECT_NE(s.message().find("5000"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("4096"), std::string::npos) << s.message();
  o.num_kv_pages = 10;  // 640 tokens
  EXPECT_TRUE(CheckFits(600, 40, o).ok());
  s = CheckFits(600, 41, o);
  EXPECT_NE(s.message().find("641"), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("640"), std::string::npos) << s.message();
  EXPECT_FALSE(CheckFits(0, 1, o).ok());
  EXPECT_FALSE(CheckFits(1, -1, o).ok());
  EXPECT_FALSE(CheckFits(1, INT64_MAX, o).ok());
}

TEST(Scheduler, DecodesComeFirstThenThePrefillThenTheQueue) {
  Scheduler scheduler(Options(4, 10, 100));
  std::mt19937 rng(1);
  auto add = [&](RequestId id, int64_t prompt) {
    GenerateRequest r;
    r.id = id;
    r.token_ids.assign(prompt, 5);
    r.sampling.max_tokens = 50;
    scheduler.Add(r);
  };
  add(1, 3);
  add(2, 30);
  add(3, 4);
  StepPlan plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 2u);
  EXPECT_EQ(plan.sequences[0].token_ids.size(), 3u);
  EXPECT_TRUE(plan.sequences[0].samples);
  EXPECT_EQ(plan.sequences[1].token_ids.size(), 7u);
  EXPECT_FALSE(plan.sequences[1].samples);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  scheduler.Append(*scheduler.Find(1), 9);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 2u);
  EXPECT_EQ(plan.sequences[0].request_id, 1u);
  EXPECT_EQ(plan.sequences[0].token_ids, std::vector<int32_t>{9});
  EXPECT_EQ(plan.sequences[1].token_ids.size(), 9u);
  EXPECT_EQ(plan.sequences[1].positions[0], 7);
}

std::shared_ptr<MediaItem> Picture(uint64_t hash, int64_t first_token, int64_t tokens) {
  auto item = std::make_shared<MediaItem>();
  item->content_hash = {hash, 0};
  item->grid_h = 2;
  item->grid_w = static_cast<int32_t>(2 * tokens);
  item->first_token = first_token;
  item->num_tokens = tokens;
  return item;
}

GenerateRequest PictureRequest(RequestId id, int64_t prompt,
                               std::vector<std::shared_ptr<const MediaItem>> media) {
  GenerateRequest r;
  r.id = id;
  r.token_ids.assign(prompt, 5);
  r.sampling.max_tokens = 2;
  r.media = std::move(media);
  return r;
}

TEST(Scheduler, ChunkBorderInsideAPicture) {
  Scheduler scheduler(Options(2, 7, 4));
  scheduler.Add(PictureRequest(1, 20, {Picture(42, 4, 12)}));
  struct Want {
    int64_t media_begin, row_begin, count;
  };
  for (Want want : {Want{0, 4, 3}, Want{3, 0, 7}, Want{10, 0, 2}}) {
    StepPlan plan = scheduler.Schedule();
    EXPECT_EQ(plan.encodes.size(), want.media_begin == 0 ? 1u : 0u);
    EXPECT_EQ(plan.encode_tokens, want.media_begin == 0 ? 12 : 0);
    ASSERT_EQ(plan.sequences.size(), 1u);
    ASSERT_EQ(plan.sequences[0].media.size(), 1u);
    const MediaSlice& slice = plan.sequences[0].media[0];
    EXPECT_EQ(slice.slab_row, 0);
    EXPECT_EQ(slice.media_begin, want.media_begin);
    EXPECT_EQ(slice.row_begin, want.row_begin);
    EXPECT_EQ(slice.count, want.count);
    EXPECT_EQ(scheduler.encoder_slots().pins(), want.media_begin + want.count < 12 ? 1 : 0);
    EXPECT_EQ(plan.encoder_kept_tokens, scheduler.encoder_slots().kept_tokens());
  }
  EXPECT_EQ(scheduler.encoder_slots().kept_tokens(), 12);  // nobody needs it, but there is room
}

TEST(Scheduler, APictureIsEncodedOnceForEverybodyAlsoAfterItsRequest) {
  Scheduler scheduler(Options(4, 100, 10));
  scheduler.Add(PictureRequest(1, 10, {Picture(42, 1, 4), Picture(42, 6, 4)}));
  StepPlan plan = scheduler.Schedule();
  EXPECT_EQ(plan.encodes.size(), 1u);
  EXPECT_EQ(plan.encoder_hits, 1);
  EXPECT_EQ(plan.encoder_hit_tokens, 4);
  scheduler.Remove(1);
  EXPECT_TRUE(scheduler.Schedule().sequences.empty());
  scheduler.CheckIdle();
  scheduler.Add(PictureRequest(2, 10, {Picture(42, 3, 4)}));
  plan = scheduler.Schedule();
  EXPECT_TRUE(plan.encodes.empty());
  EXPECT_EQ(plan.encoder_hits, 1);
  scheduler.Remove(2);
  scheduler.ForgetComputed();
  scheduler.Add(PictureRequest(3, 10, {Picture(42, 3, 4)}));
  EXPECT_EQ(scheduler.Schedule().encodes.size(), 1u);
}

TEST(Scheduler, ACacheOfNothingKeepsAPictureOnlyWhileASequenceIsInTheMiddleOfIt) {
  EngineOptions o = Options(2, 8, 10);
  o.encoder_cache_tokens = 0;
  Scheduler scheduler(o);
  scheduler.Add(PictureRequest(1, 12, {Picture(42, 2, 9)}));
  EXPECT_EQ(scheduler.Schedule().encodes.size(), 1u);
  EXPECT_EQ(scheduler.encoder_slots().kept_tokens(), 9);
  StepPlan plan = scheduler.Schedule();
  EXPECT_TRUE(plan.encodes.empty());
  EXPECT_EQ(plan.encoder_hits, 0);
  EXPECT_EQ(scheduler.encoder_slots().kept_tokens(), 0);
  scheduler.Add(PictureRequest(2, 12, {Picture(42, 2, 9)}));
  scheduler.Append(*scheduler.Find(1), 7);
  EXPECT_EQ(scheduler.Schedule().encodes.size(), 1u);
}

TEST(Scheduler, TheEncoderBudgetEndsChunksBeforePicturesAndLetsOthersPass) {
  EngineOptions o = Options(4, 100, 20);
  o.max_encoder_batch_tokens = 10;
  Scheduler scheduler(o);
  scheduler.Add(
      PictureRequest(1, 60, {Picture(1, 2, 5), Picture(2, 10, 5), Picture(3, 20, 5), Picture(4, 26, 20)}));
  scheduler.Add(PictureRequest(2, 30, {Picture(5, 7, 3)}));
  scheduler.Add(PictureRequest(3, 30, {}));
  StepPlan plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 3u);
  EXPECT_EQ(plan.sequences[0].token_ids.size(), 20u);  // up to the third picture
  EXPECT_EQ(plan.sequences[1].token_ids.size(), 7u);
  EXPECT_EQ(plan.sequences[2].token_ids.size(), 30u);
  EXPECT_TRUE(plan.sequences[2].samples);
  EXPECT_EQ(plan.encodes.size(), 2u);
  EXPECT_EQ(plan.encode_tokens, 10);
  scheduler.Append(*scheduler.Find(3), 7);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 3u);
  EXPECT_EQ(plan.num_decodes, 1);
  EXPECT_EQ(plan.sequences[0].request_id, 3u);
  EXPECT_EQ(plan.sequences[1].token_ids.size(), 6u);  // the third, not the large fourth
  EXPECT_EQ(plan.sequences[2].token_ids.size(), 23u);
  EXPECT_EQ(plan.encodes.size(), 2u);
  scheduler.Append(*scheduler.Find(3), 7);
  scheduler.Append(*scheduler.Find(2), 7);
  scheduler.Remove(3);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.encodes.size(), 1u);  // larger than the budget: it goes alone
  EXPECT_EQ(plan.encode_tokens, 20);
}

// Two videos' worth of work count twice.
TEST(Scheduler, AVideosTokensCountTwiceInTheEncoderBudget) {
  EngineOptions o = Options(4, 100, 20);
  o.max_encoder_batch_tokens = 10;
  Scheduler scheduler(o);
  auto a = Picture(1, 2, 5), b = Picture(2, 10, 5);
  a->grid_t = b->grid_t = 2;
  EXPECT_EQ(a->EncodeTokens(), 10);
  scheduler.Add(PictureRequest(1, 60, {a, b}));
  EXPECT_EQ(scheduler.Schedule().encodes.size(), 1u);
}

// 1 comes to its large picture while 2 is in the middle of one. 2 goes to its end and no further, though
// there would be room for its next one, and for the one after it, for ever.
TEST(Scheduler, WhoeverWaitsForRoomIsNotOvertaken) {
  EngineOptions o = Options(4, 8, 20);
  o.max_media_tokens = 1;
  o.encoder_cache_tokens = 24;
  o.max_encoder_batch_tokens = 12;
  Scheduler scheduler(o);
  ASSERT_EQ(scheduler.encoder_slots().capacity_tokens(), 24);
  std::vector<std::shared_ptr<const MediaItem>> many;
  for (int i = 0; i < 10; ++i) many.push_back(Picture(100 + i, 10 * i, 10));
  scheduler.Add(PictureRequest(1, 40, {Picture(8, 0, 2), Picture(9, 2, 24)}));
  scheduler.Add(PictureRequest(2, 110, many));
  StepPlan plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 2u);
  EXPECT_EQ(plan.sequences[0].token_ids.size(), 2u);
  EXPECT_EQ(plan.sequences[1].token_ids.size(), 6u);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].request_id, 2u);
  EXPECT_EQ(plan.sequences[0].token_ids.size(), 4u);
  plan = scheduler.Schedule();
  ASSERT_EQ(plan.sequences.size(), 1u);
  EXPECT_EQ(plan.sequences[0].request_id, 1u);
  EXPECT_EQ(plan.encode_tokens, 24);
}

// 131072 tokens with 9000 pictures, beside a sequence that decodes all the while.
TEST(Scheduler, AFullContextOfPictures) {
  EngineOptions o = Options(4, 384, 2100);
  o.max_model_len = 131072;
  o.max_media_tokens = 1196;
  o.encoder_cache_tokens = 16384;
  Scheduler scheduler(o);
  GenerateRequest decoding = PictureRequest(1, 10, {});
  decoding.sampling.max_tokens = 3000;
  scheduler.Add(std::move(decoding));
  scheduler.Schedule();
  std::vector<std::shared_ptr<const MediaItem>> media;
  for (int64_t i = 0; i < 9000; ++i) media.push_back(Picture(1 + i, 14 * i, 12));
  scheduler.Add(PictureRequest(2, 131072 - 2, media));
  int64_t steps = 0, encoded = 0, media_rows = 0;
  while (scheduler.Find(2)->computed_tokens < 131070) {
    scheduler.Append(*scheduler.Find(1), 7);
    const StepPlan plan = scheduler.Schedule();
    ASSERT_LE(plan.num_tokens, 384);
    ASSERT_EQ(plan.num_decodes, 1);
    encoded += static_cast<int64_t>(plan.encodes.size());
    for (const MediaSlice& slice : plan.sequences.at(1).media) media_rows += slice.count;
    ++steps;
  }
  EXPECT_EQ(steps, (131070 + 382) / 383);
  EXPECT_EQ(encoded, 9000);
  EXPECT_EQ(media_rows, 9000 * 12);
  scheduler.Remove(1);
  scheduler.Remove(2);
  scheduler.CheckIdle();
}

TEST(Scheduler, RandomWorkloads) {
  int64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 240; ++seed) {
    std::mt19937 rng(seed / 2);
    EngineOptions options = Options(1 + rng() % 16, 1 + rng() % (seed % 4 >= 2 ? 40 : 500), 9 + rng() % 20);
    options.max_model_len = 520;
    switch (rng() % 4) {
      case 0:
        break;
      case 1:
        options.encoder_cache_tokens = 0;
        break;
      default:  // hardly more than the largest picture: prompts wait for each other's
        options.max_media_tokens = 1;
        options.encoder_cache_tokens = 90 + rng() % 60;
        options.max_num_batched_tokens = std::min<int64_t>(options.max_num_batched_tokens, 89);
    }
    options.max_encoder_batch_tokens = 1 + rng() % (rng() % 2 == 0 ? 40 : 300);
    options.max_num_partial_prefills = seed / 2 % 4;
    options.max_long_partial_prefills = std::max<int64_t>(1, seed / 8 % 4);
    options.long_prefill_token_threshold = seed / 32 % 3 * 100;
    std::vector<GenerateRequest> requests;
    for (RequestId id = 1; id <= 25; ++id) requests.push_back(RandomRequest(rng, id, 300, 220));
    RunResult result = RunAll(options, requests, &rng, seed % 2 == 1);
    for (const GenerateRequest& r : requests) {
      ASSERT_EQ(result.output[r.id], Alone(r)) << "seed " << seed << " request " << r.id;
    }
    preemptions += result.preemptions;
    // Room for all of them: each is encoded once.
    if (options.encoder_cache_tokens >= kAllMediaTokens) {
      EXPECT_LE(result.encodes, static_cast<int64_t>(std::size(kMediaTokens)));
    }
  }
  EXPECT_GT(preemptions, 50);  // or the pool was too large to test them
}

// Prompts full of pictures, all at once, in a slab hardly larger than the largest one: everything ends.
TEST(Scheduler, RandomPicturesInATightSlab) {
  int64_t encoder_waits = 0, room_waits = 0, hits = 0;
  for (uint32_t seed = 0; seed < 120; ++seed) {
    std::mt19937 rng(seed / 2);
    EngineOptions options = Options(2 + rng() % 12, 2 + rng() % 80, 30 + rng() % 60);
    options.max_media_tokens = 1;
    options.encoder_cache_tokens = 90 + rng() % 40;
    options.max_encoder_batch_tokens = 1 + rng() % 200;
    options.long_prefill_token_threshold = seed % 3 == 0 ? 40 : options.max_model_len;
    options.max_long_partial_prefills = 1 + seed % 4;
    std::vector<GenerateRequest> requests;
    for (RequestId id = 1; id <= 15; ++id) {
      GenerateRequest r = PictureRequest(id, 50 + rng() % 400, {});
      r.sampling.max_tokens = 1 + rng() % 20;
      for (int64_t at = rng() % 5;; at += rng() % 4) {
        const int64_t kind = rng() % 40, tokens = 1 + kind * kind * 89 / (39 * 39);
        if (at + tokens > static_cast<int64_t>(r.token_ids.size())) break;
        r.media.push_back(Picture(1 + kind, at, tokens));
        at += tokens;
      }
      requests.push_back(std::move(r));
    }
    RunResult result = RunAll(options, requests, nullptr, seed % 2 == 1);
    for (const GenerateRequest& r : requests) {
      ASSERT_EQ(result.output[r.id], Alone(r)) << "seed " << seed << " request " << r.id;
    }
    encoder_waits += result.encoder_waits;
    room_waits += result.room_waits;
    hits += result.encoder_hits;
  }
  EXPECT_GT(encoder_waits, 1000);
  EXPECT_GT(room_waits, 100);
  EXPECT_GT(hits, 1000);
}

TEST(Scheduler, SameTokensWhateverTheBudget) {
  std::mt19937 rng(99);
  std::vector<GenerateRequest> requests;
  for (RequestId id = 1; id <= 12; ++id) requests.push_back(RandomRequest(rng, id, 400, 60));
  auto reference = RunAll(Options(12, 10000, 200), requests).output;
  for (int64_t budget : {1, 7, 64, 65, 384, 4096}) {
    EXPECT_EQ(RunAll(Options(12, budget, 200), requests).output, reference) << budget;
    EXPECT_EQ(RunAll(Options(3, budget, 200), requests).output, reference) << budget;
  }
}

TEST(Scheduler, PreemptedSequencesGenerateTheSameTokens) {
  std::mt19937 rng(5);
  std::vector<GenerateRequest> requests;
  for (RequestId id = 1; id <= 10; ++id) {
    GenerateRequest r = RandomRequest(rng, id, 60, 1);
    r.sampling.max_tokens = 300;
    requests.push_back(r);
  }
  RunResult roomy = RunAll(Options(10, 64, 100), requests);
  RunResult tight = RunAll(Options(10, 64, 9), requests);
  EXPECT_EQ(roomy.preemptions, 0);
  EXPECT_GT(tight.preemptions, 0);
  EXPECT_EQ(tight.output, roomy.output);
  RunResult overlapped = RunAll(Options(10, 64, 9), requests, nullptr, true);
  EXPECT_GT(overlapped.preemptions, 0);
  EXPECT_EQ(overlapped.output, roomy.output);
}

TEST(Scheduler, RemoveAtAnyTimeGivesEverythingBack) {
  for (uint32_t seed = 0; seed < 30; ++seed) {
    std::mt19937 rng(seed);
    EngineOptions options = Options(8, 50, 12);
    options.max_model_len = 600;
    options.max_media_tokens = 1;
    options.encoder_cache_tokens = seed % 3 == 0 ? 0 : 95;
    if (seed % 3 == 0) options.max_media_tokens = 90;
    Scheduler scheduler(options);
    Machine machine(options);
    RequestId next_id = 1;
    std::vector<StepResult::Token> in_flight;
    for (int step = 0; step < 400; ++step) {
      if (rng() % 4 == 0 && step < 300) scheduler.Add(RandomRequest(rng, next_id++, 300, 200));
      StepPlan plan = scheduler.Schedule();
      auto drawn = machine.Run(plan);
      if (seed % 2 == 1) std::swap(drawn, in_flight);
      for (const StepResult::Token& t : drawn) {
        const auto [id, token] = std::pair(t.request_id, t.token_id);
        Sequence* s = scheduler.Find(id);
        if (s == nullptr) continue;  // it left while its token was being drawn
        scheduler.Append(*s, token);
        if (s->generated_tokens() == s->request.sampling.max_tokens) scheduler.Remove(id);
      }
      std::vector<RequestId> ids = scheduler.AllIds();
      if (!ids.empty() && rng() % 3 == 0) scheduler.Remove(ids[rng() % ids.size()]);
      scheduler.pages().CheckAccounting();
      scheduler.encoder_slots().CheckAccounting();
    }
    for (RequestId id : scheduler.AllIds()) scheduler.Remove(id);
    scheduler.CheckIdle();
  }
}

}  // namespace
}  // namespace fd
