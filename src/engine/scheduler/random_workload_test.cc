// Millions of steps of random requests against a machine that remembers what every page and every row of the
// encoder slab holds. Each token's value follows from all before it, so a page that holds something else, a
// lost token or a wrong order changes what is drawn; what every request gets is compared with what it gets
// alone.
//
// FASTDEPLOY_RANDOM_STEPS: steps of each workload (by default ten million of all together, one million under
// a sanitizer, where a step takes many times as long).
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>

#include "engine/scheduler/machine_for_tests.h"
#include "engine/scheduler/scheduler.h"

namespace fd {
namespace {

constexpr int32_t kVocab = kMachineVocab, kEnd = 3;
const Clock::time_point kBegin = Clock::now();  // a step takes a millisecond

struct Workload {
  std::string name;
  EngineOptions options;
  bool pictures = false;
  bool penalties = false;
  bool failures = false;
  bool costs = false;  // of moves and of computing: now one is the cheaper, now the other
  int64_t priorities = 1;
  bool paced = false;  // limits of each step are drawn
  int64_t max_live = 12;
  int64_t max_tail = 150;  // tokens behind a shared beginning
  int64_t max_output = 90;
};

class RandomWorkload {
 public:
  RandomWorkload(const Workload& workload, uint32_t seed)
      : workload_(workload), rng_(seed), scheduler_(workload.options, {kEnd}), machine_(workload.options) {
    for (int i = 0; i < 5; ++i) beginnings_.push_back(Tokens(Below(260)));
    for (int i = 0; i < 6; ++i) {
      auto item = std::make_shared<MediaItem>();
      item->content_hash = {rng_(), rng_()};
      item->num_tokens = 1 + Below(std::max<int64_t>(workload.options.max_media_tokens, 1));
      item->grid_h = 2;
      item->grid_w = static_cast<int32_t>(2 * item->num_tokens);
      pictures_.push_back(item);
    }
  }

  void Run(int64_t steps) {
    StepPlan running;
    std::vector<StepResult::Token> drawn;
    for (int64_t i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      while (std::ssize(live_) < workload_.max_live && Below(3) == 0) Submit();
      if (!live_.empty() && Below(40) == 0) Abort();
      for (RequestId id : scheduler_.Expired(kBegin + std::chrono::milliseconds(step_))) {
        EXPECT_LE(scheduler_.Find(id)->request.deadline, kBegin + std::chrono::milliseconds(step_));
        Leave(id);
        ++expired;
      }
      if (workload_.failures && Below(2000) == 0) {
        Fail();
        running = {};
        continue;
      }
      if (workload_.costs && Below(50) == 0) SetCosts();
      if (workload_.paced) {
        scheduler_.SetPrefillLimits(1 + Below(60), Below(4) == 0 ? Below(40) : 0);
      }
      StepPlan next = scheduler_.Schedule();
      Check(next);
      std::vector<StepResult::Token> next_drawn = machine_.Run(next);
      if (!workload_.options.overlap) {
        Publish(next_drawn);
      } else {
        if (!running.sequences.empty()) Publish(drawn);
        running = std::move(next);
        drawn = std::move(next_drawn);
      }
      if (Below(5000) == 0 && !workload_.options.overlap) Drain();
    }
    if (workload_.options.overlap) Publish(drawn);
    Drain();
  }

  int64_t finished = 0, hit_tokens = 0, host_hit_tokens = 0, preemptions = 0, entered = 0;
  PageMoveCounts moves;
  int64_t longest_wait = 0, most_urgent_preemptions = 0;  // the former of the most urgent priority, in steps
  int64_t expired = 0;

 private:
  struct Live {
    std::vector<int32_t> expected, got;
    int64_t submitted_step = 0;
  };

  int64_t Below(int64_t n) { return static_cast<int64_t>(rng_() % static_cast<uint64_t>(n)); }
  std::vector<int32_t> Tokens(int64_t count) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(Below(kVocab)));
    return tokens;
  }

  void Submit() {
    GenerateRequest request;
    request.id = ++last_id_;
    if (!answered_.empty() && Below(3) == 0) {  // another turn of a conversation
      request.token_ids = answered_[static_cast<size_t>(Below(std::ssize(answered_)))];
    } else {
      request.token_ids = beginnings_[static_cast<size_t>(Below(std::ssize(beginnings_)))];
      request.token_ids.resize(static_cast<size_t>(Below(std::ssize(request.token_ids) + 1)));
    }
    for (int32_t token : Tokens(1 + Below(workload_.max_tail))) request.token_ids.push_back(token);
    const int64_t longest = workload_.options.MaxSequenceTokens();
    if (std::ssize(request.token_ids) > longest - 1)
      request.token_ids.resize(static_cast<size_t>(longest - 1));
    if (workload_.pictures && Below(2) == 0) AddPictures(request);
    request.sampling.max_tokens =
        std::min(1 + Below(workload_.max_output), longest - std::ssize(request.token_ids));
    request.sampling.seed = static_cast<uint64_t>(Below(3));
    if (workload_.penalties && Below(3) > 0) request.sampling.presence_penalty = 1;
    request.priority = Below(workload_.priorities);
    if (Below(30) == 0) request.deadline = kBegin + std::chrono::milliseconds(step_ + Below(400));
    if (Below(4) == 0) request.cache_salt = Below(2) == 0 ? "a" : "b";
    live_.emplace(request.id, Live{Alone(request, kEnd), {}, step_});
    prompts_[request.id] = request.token_ids;
    scheduler_.Add(std::move(request));
  }

  void AddPictures(GenerateRequest& request) {
    const auto prompt = std::ssize(request.token_ids);
    int64_t at = Below(40);
    request.vision_expert.assign(static_cast<size_t>(prompt), 0);
    while (true) {
      const auto& picture = pictures_[static_cast<size_t>(Below(std::ssize(pictures_)))];
      if (at + picture->num_tokens >= prompt) break;
      auto item = std::make_shared<MediaItem>(*picture);
      item->first_token = at;
      for (int64_t n = at; n < at + item->num_tokens; ++n) {
        request.token_ids[static_cast<size_t>(n)] = 1;
        request.vision_expert[static_cast<size_t>(n)] = 1;
      }
      at += item->num_tokens + Below(60);
      request.media.push_back(item);
    }
    for (int64_t axis = 0; axis < 3; ++axis) {
      int64_t position = 0, left = 0;
      size_t next = 0;
      for (int64_t n = 0; n < prompt; ++n) {
        if (next < request.media.size() && n == request.media[next]->first_token) {
          left = request.media[next++]->num_tokens;
        }
        request.positions.push_back(static_cast<int32_t>(position + (left > 0 ? axis : 0)));
        if (left > 0 ? --left == 0 : true) ++position;
      }
      if (axis == 0) request.position_delta = position - prompt;
    }
  }

  void Abort() {
    auto it = live_.begin();
    std::advance(it, Below(std::ssize(live_)));
    Leave(it->first);
  }

  void Leave(RequestId id) {
    scheduler_.Remove(id);
    prompts_.erase(id);
    live_.erase(id);
  }

  void Fail() {
    machine_.Scramble();
    for (RequestId id : scheduler_.AllIds()) scheduler_.Discard(id);
    scheduler_.ForgetComputed();
    live_.clear();
    prompts_.clear();
    scheduler_.CheckIdle();
  }

  void SetCosts() {
    const double token_ms = 0.01 * static_cast<double>(Below(3));
    scheduler_.SetMoveCosts({.page_in_ms = 0.32, .page_out_ms = 0.3, .token_ms = token_ms});
  }

  void Check(const StepPlan& plan) {
    ++step_;
    int64_t tokens = 0, found = 0;
    std::set<int32_t> written;
    std::set<RequestId> ids;
    for (const SequenceStep& step : plan.sequences) {
      const auto count = std::ssize(step.token_ids);
      tokens += count;
      EXPECT_TRUE(ids.insert(step.request_id).second);
      if (step.controls) found += std::ssize(step.controls->found_ids);
      for (int64_t n = (step.context_tokens - count) / kKvPageTokens; n * kKvPageTokens < step.context_tokens;
           ++n) {
        EXPECT_TRUE(written.insert(step.block_table.at(static_cast<size_t>(n))).second)
            << "two sequences write one page";
      }
    }
    for (const SequenceStep& step : plan.sequences) {
      const int64_t own = (step.context_tokens - std::ssize(step.token_ids)) / kKvPageTokens;
      for (int64_t n = 0; n < own; ++n) {
        EXPECT_FALSE(written.contains(step.block_table.at(static_cast<size_t>(n))))
            << "a page read and written";
      }
    }
    EXPECT_EQ(tokens, plan.num_tokens);
    EXPECT_LE(found, workload_.options.max_model_len);
    entered += found;
    EXPECT_LE(tokens, workload_.options.max_num_batched_tokens);
    EXPECT_LE(std::ssize(plan.sequences), workload_.options.MaxStepSequences());
    if (!live_.empty() && !workload_.options.overlap) {
      EXPECT_FALSE(plan.sequences.empty()) << "work waits and nothing runs";
    }
    hit_tokens += plan.prefix_hit_tokens;
    host_hit_tokens += plan.prefix_host_hit_tokens;
    EXPECT_LE(plan.prefix_host_hit_tokens, plan.prefix_hit_tokens);
    const PageMoveCounts counts = CountMoves(plan.page_moves);
    moves.copies += counts.copies;
    moves.out += counts.out;
    moves.in += counts.in;
    if (counts.in == 0) {
      EXPECT_EQ(plan.prefix_host_hit_tokens, 0);
    }
    EXPECT_LE(plan.prefix_host_hit_tokens, counts.in * kKvPageTokens);
    const auto& pages = scheduler_.pages();
    EXPECT_EQ(pages.free_pages() + pages.cached_pages() + pages.used_pages(), pages.total_pages());
    if (step_ % 1000 == 0) pages.CheckAccounting();
  }

  void Publish(const std::vector<StepResult::Token>& drawn) {
    for (const StepResult::Token& token : drawn) {
      Sequence* sequence = scheduler_.Find(token.request_id);
      if (sequence == nullptr) continue;
      scheduler_.Append(*sequence, token.token_id);
      Live& live = live_.at(token.request_id);
      live.got.push_back(token.token_id);
      if (token.token_id != kEnd && std::ssize(live.got) < sequence->request.sampling.max_tokens) continue;
      EXPECT_EQ(live.got, live.expected) << "request " << token.request_id;
      std::vector<int32_t> tokens = std::move(prompts_.at(token.request_id));
      if (sequence->request.media.empty() && std::ssize(tokens) < workload_.options.MaxSequenceTokens() / 2) {
        tokens.insert(tokens.end(), live.got.begin(), live.got.end());
        answered_.push_back(std::move(tokens));
        if (answered_.size() > 20) answered_.pop_front();
      }
      if (sequence->request.priority == 0) {
        longest_wait = std::max(longest_wait, step_ - live.submitted_step);
      }
      most_urgent_preemptions = std::max(most_urgent_preemptions, sequence->urgent_preemptions);
      prompts_.erase(token.request_id);
      live_.erase(token.request_id);
      scheduler_.Remove(token.request_id);
      ++finished;
    }
  }

  void Drain() {
    for (int64_t i = 0; !live_.empty() && !testing::Test::HasFailure(); ++i) {
      StepPlan plan = scheduler_.Schedule();
      Check(plan);
      Publish(machine_.Run(plan));
      ASSERT_LT(i, 100'000) << "a request never ends";
    }
    preemptions = scheduler_.num_preemptions();
    if (!testing::Test::HasFailure()) scheduler_.CheckIdle();
  }

  const Workload workload_;
  std::mt19937_64 rng_;
  Scheduler scheduler_;
  Machine machine_;
  std::vector<std::vector<int32_t>> beginnings_;
  std::deque<std::vector<int32_t>> answered_;
  std::vector<std::shared_ptr<MediaItem>> pictures_;
  std::map<RequestId, Live> live_;
  std::map<RequestId, std::vector<int32_t>> prompts_;
  RequestId last_id_ = 0;
  int64_t step_ = 0;
};

std::vector<Workload> Workloads() {
  EngineOptions base;
  base.max_model_len = 512;
  base.max_num_seqs = 6;
  base.max_num_batched_tokens = 96;
  base.num_kv_pages = 24;
  std::vector<Workload> out;
  out.push_back({.name = "text", .options = base});
  Workload scarce{.name = "scarce", .options = base};
  scarce.options.num_kv_pages = 9;
  scarce.options.max_num_batched_tokens = 33;
  out.push_back(scarce);
  Workload crowded{.name = "crowded", .options = base, .max_tail = 30, .max_output = 250};
  crowded.options.num_kv_pages = 11;
  crowded.options.max_num_seqs = 8;
  out.push_back(crowded);
  Workload failing{.name = "failing", .options = base, .failures = true};
  out.push_back(failing);
  Workload uncached{.name = "uncached", .options = base};
  uncached.options.prefix_caching = false;
  out.push_back(uncached);
  for (const Workload& same : std::vector<Workload>{out[0], out[2]}) {
    Workload overlapped = same;
    overlapped.name = same.options.num_kv_pages == 11 ? "crowded_overlapped" : "overlapped";
    overlapped.options.overlap = true;
    out.push_back(overlapped);
  }
  Workload pictures{.name = "pictures", .options = base, .pictures = true};
  pictures.options.max_media_tokens = 40;
  pictures.options.encoder_cache_tokens = 60;
  out.push_back(pictures);
  pictures.name = "pictures_overlapped";
  pictures.options.overlap = true;
  pictures.options.encoder_cache_tokens = 0;
  pictures.penalties = true;
  out.push_back(pictures);
  Workload penalties{.name = "penalties", .options = base, .penalties = true};
  out.push_back(penalties);
  penalties = {.name = "penalties_crowded", .options = crowded.options, .penalties = true, .max_output = 250};
  penalties.options.overlap = true;
  penalties.options.max_model_len = 320;  // of found tokens, too
  out.push_back(penalties);
  // The same with pages on the host: few, so that many are lost there too, and enough for most.
  const size_t without = out.size();
  for (const int64_t host_pages : {5, 40}) {
    for (size_t i = 0; i < without; ++i) {
      if (!out[i].options.prefix_caching) continue;
      Workload swapped = out[i];
      swapped.options.num_host_pages = host_pages;
      swapped.name += host_pages == 5 ? "_few_host_pages" : "_host_pages";
      swapped.costs = i == 0;
      out.push_back(swapped);
    }
  }
  for (const bool overlap : {false, true}) {
    Workload urgent{.name = overlap ? "priorities_overlapped" : "priorities", .options = crowded.options};
    urgent.options.overlap = overlap;
    urgent.options.max_num_seqs = 4;
    urgent.priorities = 4;
    urgent.max_output = 150;
    out.push_back(urgent);
  }
  Workload limits{.name = "partial_prefills", .options = base};
  limits.options.max_num_batched_tokens = 40;
  limits.options.max_num_partial_prefills = 2;
  limits.options.long_prefill_token_threshold = 50;
  limits.priorities = 2;
  out.push_back(limits);
  limits.name = "partial_prefills_paced";
  limits.options.overlap = true;
  limits.options.max_long_partial_prefills = 2;
  limits.options.max_num_partial_prefills = 0;
  limits.options.max_media_tokens = 40;
  limits.pictures = limits.penalties = limits.paced = true;
  out.push_back(limits);
  return out;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int64_t kAllSteps = 1'000'000;
#else
constexpr int64_t kAllSteps = 10'000'000;
#endif

int64_t StepsWanted() {
  static const int64_t steps = [] {
    const char* text = std::getenv("FASTDEPLOY_RANDOM_STEPS");
    return text != nullptr ? std::atoll(text) : kAllSteps / std::ssize(Workloads()) + 1;
  }();
  return steps;
}

class RandomWorkloadTest : public testing::TestWithParam<Workload> {};

TEST_P(RandomWorkloadTest, EveryRequestGetsWhatItGetsAlone) {
  RandomWorkload run(GetParam(), 11);
  run.Run(StepsWanted());
  EXPECT_GT(run.finished, StepsWanted() / 100);
  if (GetParam().options.prefix_caching) {
    EXPECT_GT(run.hit_tokens, 0);
    EXPECT_GT(run.moves.copies, 0);
  } else {
    EXPECT_EQ(run.hit_tokens, 0);
  }
  if (GetParam().options.num_host_pages > 0) {
    EXPECT_GT(run.moves.in, 0);
    EXPECT_GT(run.moves.out, 0);
    EXPECT_GT(run.host_hit_tokens, 0);
  }
  EXPECT_EQ(run.entered > 0, GetParam().penalties);
  // Twelve live requests of at most 512 tokens each, one token a step in the worst case.
  EXPECT_LT(run.longest_wait, 12 * 512);
  EXPECT_GT(run.expired, 0);
  EXPECT_LE(run.most_urgent_preemptions, kMaxUrgentPreemptions);
  EXPECT_EQ(run.most_urgent_preemptions > 0, GetParam().priorities > 1);
  if (GetParam().options.num_kv_pages == 11) {
    EXPECT_GT(run.preemptions, 0);
  }
  std::printf("%s: %lld requests, %lld tokens found, %lld of them on the host, %lld preemptions\n",
              GetParam().name.c_str(), static_cast<long long>(run.finished),
              static_cast<long long>(run.hit_tokens), static_cast<long long>(run.host_hit_tokens),
              static_cast<long long>(run.preemptions));
  std::printf("  pages copied %lld, moved out %lld, moved in %lld\n",
              static_cast<long long>(run.moves.copies), static_cast<long long>(run.moves.out),
              static_cast<long long>(run.moves.in));
}

INSTANTIATE_TEST_SUITE_P(All, RandomWorkloadTest, testing::ValuesIn(Workloads()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace fd
