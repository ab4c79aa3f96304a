// One hash for all: the same requests alone and together, in chunks of every size, with what the prefix cache
// has, preempted and not, planned ahead and not, as recorded graphs and not, give the same token ids and the
// same bits of log-probabilities. On the CPU always; on a GPU under Context::batch_invariant, in bfloat16 and
// with quantised weights too.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <map>
#include <mutex>
#include <numeric>

#include "base/hash.h"
#include "base/strings.h"
#include "engine/engine.h"
#include "tests/golden/device_under_test.h"
#include "tests/golden/engine_cases.h"

namespace fd {
namespace {

using golden::GoldenCase;
using golden::kModels;

struct Answer {
  std::vector<int32_t> ids;
  std::vector<uint32_t> bits;
  bool operator==(const Answer&) const = default;
};
using Answers = std::map<size_t, Answer>;

std::string HashOf(const Answers& answers) {
  std::string text;
  for (const auto& [index, answer] : answers) {
    text += StrCat("\n", index);
    for (int32_t id : answer.ids) text += StrCat(" ", id);
    for (uint32_t b : answer.bits) text += StrCat(" ", b);
  }
  const Hash128 hash = SipHash128(0, 0, text);
  return StrCat(hash.low, ".", hash.high);
}

struct Kind {
  std::string family;
  DType dtype = DType::kBFloat16;
  int bits = 0;  // of the weights; 0: as stored
};

struct Run {
  const char* name;
  int64_t budget = 4096, seqs = 1, pages = 100;
  bool prefix_caching = false, overlap = false, graphs = false;
  int copies = 1;         // of every request, at once
  bool preempts = false;  // one page more than the longest request needs
};

// Every answer, once: copies must be equal. Greedy requests, and the same with a seed.
Answers AnswersOf(const Kind& kind, const std::vector<GoldenCase>& cases, const Run& run,
                  EngineStats* stats) {
  golden::TestContext machine;
  machine.ctx.batch_invariant = true;
  LoadOptions load;
  load.dtype = kind.dtype;
  load.quantization.bits = kind.bits;
  auto model = LoadModel(machine.ctx, kModels + kind.family, load);
  FD_CHECK(model.ok(), model.status().message());
  EngineOptions options;
  options.max_num_batched_tokens = run.budget;
  options.max_num_seqs = run.seqs;
  int64_t longest = 0;
  for (const GoldenCase& c : cases)
    longest = std::max(longest, std::ssize(c.request.token_ids) + c.request.sampling.max_tokens);
  options.num_kv_pages = run.preempts ? PagesForTokens(longest) + 1 : run.pages;
  options.max_media_tokens = 256;
  options.encoder_cache_tokens = run.prefix_caching ? 4096 : 0;
  options.prefix_caching = run.prefix_caching;
  options.overlap = run.overlap;
  options.cuda_graphs = run.graphs;
  Engine engine(std::move(*model), machine.ctx, options);
  const Status prepared = engine.Prepare();
  FD_CHECK(prepared.ok(), prepared.message());

  std::mutex mutex;
  std::condition_variable changed;
  std::map<RequestId, Answer> results;
  size_t finished = 0;
  const size_t count = 2 * cases.size();
  std::vector<size_t> order(count * static_cast<size_t>(run.copies));
  std::iota(order.begin(), order.end(), size_t{0});
  if (run.preempts) {  // who needs his second page while he decodes comes first, so that they meet
    std::stable_partition(order.begin(), order.end(), [&](size_t i) {
      const GenerateRequest& r = cases[i % cases.size()].request;
      const int64_t prompt = std::ssize(r.token_ids);
      return prompt <= kKvPageTokens && prompt + r.sampling.max_tokens > kKvPageTokens + 1;
    });
  }
  for (const size_t i : order) {
    GenerateRequest r = cases[i % cases.size()].request;
    r.id = i;
    if (i % count >= cases.size()) {
      r.sampling.temperature = 1.1f;
      r.sampling.top_p = 0.95f;
      r.sampling.seed = i % cases.size();
      r.sampling.repetition_penalty = 1.1f;
    }
    r.sampling.top_logprobs = 2;
    r.sink = [&](TokenEvent&& event) {
      std::lock_guard lock(mutex);
      Answer& answer = results[event.request_id];
      answer.ids.insert(answer.ids.end(), event.token_ids.begin(), event.token_ids.end());
      for (const float logprob : event.logprobs) answer.bits.push_back(std::bit_cast<uint32_t>(logprob));
      for (const auto& tops : event.top_logprobs) {
        for (const TokenLogprob& top : tops) answer.bits.push_back(std::bit_cast<uint32_t>(top.logprob));
      }
      finished += event.finish_reason.has_value();
      changed.notify_all();
    };
    const Status status = engine.Submit(std::move(r));
    FD_CHECK(status.ok(), status.message());
  }
  engine.Start();
  {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(600),
                                 [&] { return finished == count * static_cast<size_t>(run.copies); }));
  }
  *stats = engine.Stats();
  Answers answers;
  for (const auto& [id, answer] : results) {
    const auto [first, fresh] = answers.emplace(id % count, answer);
    EXPECT_TRUE(fresh || first->second == answer) << "copy " << id / count << " of request " << id % count;
  }
  return answers;
}

void OneHashForAll(const Kind& kind, const std::vector<GoldenCase>& cases) {
  SCOPED_TRACE(StrCat(kind.family, " ", DTypeName(kind.dtype), " ", kind.bits, " bits"));
  const Run runs[] = {
      {.name = "one after the other, whole prompts"},
      {.name = "together", .seqs = 64},
      {.name = "chunks of 7", .budget = 7, .seqs = 4},
      {.name = "chunks of 64 beside decodes", .budget = 64, .seqs = 16},
      {.name = "chunks of 200, three of each", .budget = 200, .seqs = 64, .copies = 3},
      {.name = "prefix cache", .budget = 100, .seqs = 3, .prefix_caching = true, .copies = 3},
      {.name = "planned ahead", .budget = 64, .seqs = 16, .overlap = true},
      {.name = "graphs", .budget = 64, .seqs = 16, .graphs = true},
      {.name = "graphs, planned ahead, cache",
       .seqs = 40,
       .prefix_caching = true,
       .overlap = true,
       .graphs = true,
       .copies = 2},
      {.name = "preempted", .budget = 200, .seqs = 16, .copies = 4, .preempts = true},
      {.name = "preempted, resumed from the cache",
       .budget = 200,
       .seqs = 16,
       .prefix_caching = true,
       .overlap = true,
       .copies = 4,
       .preempts = true},
  };
  Answers first;
  for (const Run& run : runs) {
    SCOPED_TRACE(run.name);
    EngineStats stats;
    const Answers answers = AnswersOf(kind, cases, run, &stats);
    ASSERT_EQ(answers.size(), 2 * cases.size());
    if (first.empty()) first = answers;
    EXPECT_EQ(HashOf(answers), HashOf(first));
    for (const auto& [index, answer] : answers) EXPECT_TRUE(answer == first[index]) << "request " << index;
    EXPECT_TRUE(!run.preempts || stats.preemptions > 0);
    EXPECT_TRUE(!run.prefix_caching || run.copies <= 2 || stats.prefix_hit_tokens > 0);
  }
}

TEST(Determinism, Dense) { OneHashForAll({"ernie4_5"}, golden::TextCases("ernie4_5")); }
TEST(Determinism, DenseInFloat32) {
  OneHashForAll({"ernie4_5", DType::kFloat32}, golden::TextCases("ernie4_5"));
}
TEST(Determinism, Experts) { OneHashForAll({"ernie4_5_moe"}, golden::TextCases("ernie4_5_moe")); }
TEST(Determinism, ExpertsOf4Bits) {
  OneHashForAll({"ernie4_5_moe", DType::kBFloat16, 4}, golden::TextCases("ernie4_5_moe"));
}
TEST(Determinism, Pictures) { OneHashForAll({"ernie4_5_vl_moe"}, golden::VlCases()); }

}  // namespace
}  // namespace fd
