#include "engine/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace fd {
namespace {

// Stands for a device: remembers what lies in every slot of the cache and draws the next token as a hash of
// all that a sequence's block table leads to. A wrong page, position, chunk or picture slice changes it.
class FakeDevice {
 public:
  explicit FakeDevice(int64_t pages) : slots_(pages * kKvPageTokens, 0) {}

  static uint64_t Mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
  }
  static uint64_t TokenWord(int32_t token, int32_t t, int32_t h, int32_t w, bool vision, uint64_t media) {
    return Mix(Mix(Mix(Mix(Mix(Mix(1, token), t), h), w), vision), media);
  }
  static int32_t Draw(uint64_t hash) { return static_cast<int32_t>(hash % 1000); }

  // Request id -> token, for the sequences that sample.
  std::map<RequestId, int32_t> Execute(const StepPlan& plan) {
    std::map<RequestId, int32_t> drawn;
    std::vector<int32_t> outputs;
    for (const SequenceStep& s : plan.sequences) {
      const int64_t n = static_cast<int64_t>(s.token_ids.size());
      std::vector<uint64_t> media(n, 0);
      for (const MediaSlice& slice : s.media) {
        for (int64_t i = 0; i < slice.count; ++i) {
          EXPECT_EQ(media[slice.row_begin + i], 0u) << "two slices on one row";
          media[slice.row_begin + i] = Mix(slice.item->content_hash.low, slice.media_begin + i + 1);
        }
      }
      for (int64_t i = 0; i < n; ++i) {
        int64_t index = s.context_tokens - n + i;
        bool vision = !s.vision_expert.empty() && s.vision_expert[i];
        const bool unknown = s.last_token_from_row >= 0 && i == n - 1;
        const int32_t token = unknown ? outputs_.at(s.last_token_from_row) : s.token_ids[i];
        slots_[Slot(s, index)] =
            TokenWord(token, s.positions[i], s.positions[n + i], s.positions[2 * n + i], vision, media[i]);
      }
      if (!s.samples) continue;
      uint64_t hash = s.seed;
      for (int64_t i = 0; i < s.context_tokens; ++i) hash = Mix(hash, slots_[Slot(s, i)]);
      EXPECT_EQ(s.sample_position, s.context_tokens);
      drawn[s.request_id] = Draw(hash);
      outputs.push_back(Draw(hash));
    }
    EXPECT_EQ(static_cast<int32_t>(outputs.size()), plan.num_outputs);
    outputs_ = outputs;
    return drawn;
  }

 private:
  static int64_t Slot(const SequenceStep& s, int64_t index) {
    return s.block_table.at(index / kKvPageTokens) * kKvPageTokens + index % kKvPageTokens;
  }
  std::vector<uint64_t> slots_;
  std::vector<int32_t> outputs_;  // of the last step, by row
};

// What a request must generate, computed without scheduler or cache.
std::vector<int32_t> Expected(const GenerateRequest& r) {
  const int64_t prompt = static_cast<int64_t>(r.token_ids.size());
  std::vector<uint64_t> media(prompt, 0);
  for (const auto& item : r.media) {
    for (int64_t i = 0; i < item->num_tokens; ++i) {
      media[item->first_token + i] = FakeDevice::Mix(item->content_hash.low, i + 1);
    }
  }
  uint64_t hash = r.sampling.seed;
  for (int64_t i = 0; i < prompt; ++i) {
    auto position = [&](int axis) {
      return r.positions.empty() ? static_cast<int32_t>(i) : r.positions[axis * prompt + i];
    };
    bool vision = !r.vision_expert.empty() && r.vision_expert[i];
    hash = FakeDevice::Mix(
        hash, FakeDevice::TokenWord(r.token_ids[i], position(0), position(1), position(2), vision, media[i]));
  }
  std::vector<int32_t> out{FakeDevice::Draw(hash)};
  while (static_cast<int64_t>(out.size()) < r.sampling.max_tokens) {
    int32_t p = static_cast<int32_t>(prompt + out.size() - 1 + r.position_delta);
    hash = FakeDevice::Mix(hash, FakeDevice::TokenWord(out.back(), p, p, p, false, 0));
    out.push_back(FakeDevice::Draw(hash));
  }
  return out;
}

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
      item->content_hash = {1 + rng() % 5, 0};  // few, so that sequences share pictures
      item->first_token = at;
      item->num_tokens = std::min<int64_t>(1 + rng() % 90, prompt - at);
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
};

// Runs all requests, adding one whenever `arrivals` says so, and checks every plan on the way. overlap: a
// plan's tokens become known only after the next plan has been made.
RunResult RunAll(const EngineOptions& options, const std::vector<GenerateRequest>& requests,
                 std::mt19937* arrivals = nullptr, bool overlap = false) {
  Scheduler scheduler(options);
  FakeDevice device(options.num_kv_pages);
  RunResult result;
  std::set<uint64_t> held;  // pictures whose encoder output the device would keep
  size_t next = 0;
  std::map<RequestId, int32_t> in_flight;
  auto publish = [&](const std::map<RequestId, int32_t>& drawn) {
    for (auto [id, token] : drawn) {
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
    StepPlan plan = scheduler.Schedule();
    for (const Hash128& hash : plan.released_media) {
      EXPECT_EQ(held.erase(hash.low), 1u) << "released a picture that was never used";
    }
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
      bool decode = s.token_ids.size() == 1 && s.context_tokens > 1 && s.samples;
      if (!decode) prefill_seen = true;
      EXPECT_FALSE(decode && prefill_seen) << "a decode behind a prefill";
      for (const MediaSlice& slice : s.media) held.insert(slice.item->content_hash.low);
    }
    EXPECT_EQ(pages.size(), page_count) << "a page in two block tables";
    EXPECT_EQ(tokens, plan.num_tokens);
    EXPECT_LE(tokens, options.max_num_batched_tokens);
    EXPECT_LE(static_cast<int64_t>(plan.sequences.size()), options.MaxStepSequences());
    // Every running sequence advances in every step, but for those whose last token is on its way: nobody
    // starves.
    int64_t advancing = 0;
    for (RequestId id : scheduler.RunningIds()) {
      advancing += ids.contains(id) || !scheduler.Find(id)->AwaitsLastToken();
    }
    EXPECT_EQ(static_cast<int64_t>(plan.sequences.size()), advancing);
    scheduler.pages().CheckAccounting();
    if ((plan.sequences.empty() && in_flight.empty()) || ++result.steps > 2000000) {
      ADD_FAILURE() << "no progress";
      return result;
    }
    auto drawn = device.Execute(plan);
    if (overlap) std::swap(drawn, in_flight);
    publish(drawn);
  }
  StepPlan last = scheduler.Schedule();
  EXPECT_TRUE(last.sequences.empty());
  for (const Hash128& hash : last.released_media) EXPECT_EQ(held.erase(hash.low), 1u);
  EXPECT_TRUE(held.empty()) << "a picture is kept for nobody";
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
  EXPECT_FALSE(CheckFits(1, 0, o).ok());
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

TEST(Scheduler, ChunkBorderInsideAPicture) {
  GenerateRequest r;
  r.id = 1;
  r.token_ids.assign(20, 5);
  r.sampling.max_tokens = 2;
  auto item = std::make_shared<MediaItem>();
  item->content_hash = {42, 0};
  item->first_token = 4;
  item->num_tokens = 12;
  r.media = {item};
  Scheduler scheduler(Options(2, 7, 4));
  scheduler.Add(r);
  struct Want {
    int64_t media_begin, row_begin, count;
  };
  for (Want want : {Want{0, 4, 3}, Want{3, 0, 7}, Want{10, 0, 2}}) {
    StepPlan plan = scheduler.Schedule();
    EXPECT_TRUE(plan.released_media.empty());
    ASSERT_EQ(plan.sequences.size(), 1u);
    ASSERT_EQ(plan.sequences[0].media.size(), 1u);
    const MediaSlice& slice = plan.sequences[0].media[0];
    EXPECT_EQ(slice.media_begin, want.media_begin);
    EXPECT_EQ(slice.row_begin, want.row_begin);
    EXPECT_EQ(slice.count, want.count);
  }
  scheduler.Append(*scheduler.Find(1), 7);
  StepPlan plan = scheduler.Schedule();
  EXPECT_EQ(plan.released_media.size(), 1u);  // nobody needs the picture any more
}

TEST(Scheduler, EqualPicturesAreHeldUntilTheLastNeedsThem) {
  GenerateRequest r;
  r.token_ids.assign(10, 5);
  r.sampling.max_tokens = 5;
  auto item = std::make_shared<MediaItem>();
  item->content_hash = {42, 0};
  item->first_token = 1;
  item->num_tokens = 4;
  r.media = {item};
  Scheduler scheduler(Options(1, 100, 4));
  r.id = 1;
  scheduler.Add(r);
  r.id = 2;
  scheduler.Add(r);  // waits: only one may run
  StepPlan plan = scheduler.Schedule();
  scheduler.Append(*scheduler.Find(1), 7);
  plan = scheduler.Schedule();
  EXPECT_TRUE(plan.released_media.empty());
  scheduler.Remove(1);
  scheduler.Remove(2);
  plan = scheduler.Schedule();
  EXPECT_EQ(plan.released_media.size(), 1u);
  scheduler.CheckIdle();
}

TEST(Scheduler, RandomWorkloads) {
  int64_t preemptions = 0;
  for (uint32_t seed = 0; seed < 120; ++seed) {
    std::mt19937 rng(seed / 2);
    EngineOptions options = Options(1 + rng() % 16, 1 + rng() % (seed % 4 >= 2 ? 40 : 500), 9 + rng() % 20);
    options.max_model_len = 520;
    std::vector<GenerateRequest> requests;
    for (RequestId id = 1; id <= 25; ++id) requests.push_back(RandomRequest(rng, id, 300, 220));
    RunResult result = RunAll(options, requests, &rng, seed % 2 == 1);
    for (const GenerateRequest& r : requests) {
      ASSERT_EQ(result.output[r.id], Expected(r)) << "seed " << seed << " request " << r.id;
    }
    preemptions += result.preemptions;
  }
  EXPECT_GT(preemptions, 50);  // or the pool was too large to test them
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
    Scheduler scheduler(options);
    FakeDevice device(12);
    RequestId next_id = 1;
    std::map<RequestId, int32_t> in_flight;
    for (int step = 0; step < 400; ++step) {
      if (rng() % 4 == 0 && step < 300) scheduler.Add(RandomRequest(rng, next_id++, 300, 200));
      StepPlan plan = scheduler.Schedule();
      auto drawn = device.Execute(plan);
      if (seed % 2 == 1) std::swap(drawn, in_flight);
      for (auto [id, token] : drawn) {
        Sequence* s = scheduler.Find(id);
        if (s == nullptr) continue;  // it left while its token was being drawn
        scheduler.Append(*s, token);
        if (s->generated_tokens() == s->request.sampling.max_tokens) scheduler.Remove(id);
      }
      std::vector<RequestId> ids = scheduler.AllIds();
      if (!ids.empty() && rng() % 3 == 0) scheduler.Remove(ids[rng() % ids.size()]);
      scheduler.pages().CheckAccounting();
    }
    for (RequestId id : scheduler.AllIds()) scheduler.Remove(id);
    scheduler.Schedule();
    scheduler.CheckIdle();
  }
}

}  // namespace
}  // namespace fd
