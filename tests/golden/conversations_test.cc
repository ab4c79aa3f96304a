// Conversations through the real Engine and real (small) models: turns, pictures, forks and shared system
// prompts give the same tokens whether the prefix cache is off, cold, hit, evicted or swapped to the host,
// and with preemptions; and each turn finds exactly what was computed before. 500 conversations,
// FASTDEPLOY_CONVERSATIONS per cent of them (100).
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <random>

#include "base/hash.h"
#include "engine/engine.h"
#include "tests/golden/device_under_test.h"
#include "tests/golden/engine_cases.h"

namespace fd {
namespace {

using Ids = std::vector<int32_t>;

struct Turn {
  Ids user;
  int picture = -1;  // before the text
};

struct Conversation {
  std::string salt;
  Ids system;
  std::vector<Turn> turns;
  SamplingParams sampling;
};

// A prompt as it grows.
struct Prompt {
  Ids ids;
  std::vector<int32_t> axes[3];
  std::vector<uint8_t> vision_expert;
  std::vector<std::shared_ptr<const MediaItem>> media;
  std::vector<uint64_t> content;  // one word a token: id, position, picture and row
  int32_t next_position = 0;

  void Add(int32_t id, int32_t t, int32_t h, int32_t w, uint64_t picture) {
    ids.push_back(id);
    const int32_t position[3] = {t, h, w};
    for (int axis = 0; axis < 3; ++axis) axes[axis].push_back(position[axis]);
    vision_expert.push_back(picture != 0);
    content.push_back(KeyedHash(StrCat(id, " ", t, " ", h, " ", w, " ", picture)).low);
  }
  void AddText(const Ids& text) {
    for (int32_t id : text) {
      Add(id, next_position, next_position, next_position, 0);
      ++next_position;
    }
  }
  void AddPicture(const MediaItem& picture, int32_t placeholder) {
    auto item = std::make_shared<MediaItem>(picture);
    item->first_token = std::ssize(ids);
    const int32_t rows = item->grid_h / 2, columns = item->grid_w / 2, at = next_position;
    for (int32_t i = 0; i < rows * columns; ++i) {
      Add(placeholder, at, at + i / columns, at + i % columns,
          item->content_hash.low + static_cast<uint64_t>(i) + 1);
    }
    next_position += std::max(rows, columns);
    media.push_back(std::move(item));
  }
};

class Script {
 public:
  // answer_tokens: 0: some.
  Script(const ModelConfig& config, int64_t count, uint32_t seed, int64_t answer_tokens = 0)
      : vocab_(static_cast<int32_t>(std::min<int64_t>(config.vocab_size, 500))),
        answer_tokens_(answer_tokens),
        rng_(seed) {
    if (config.vision) {
      for (int i = 0; i < 12; ++i) pictures.push_back(MakePicture(*config.vision));
    }
    for (int i = 0; i < 4; ++i) systems_.push_back(Text(20 + Below(140)));
    while (std::ssize(conversations) < count) conversations.push_back(MakeConversation());
  }

  std::vector<Conversation> conversations;
  std::vector<MediaItem> pictures;

 private:
  int64_t Below(int64_t n) { return static_cast<int64_t>(rng_() % static_cast<uint64_t>(n)); }
  Ids Text(int64_t count) {
    Ids ids;
    for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(3 + Below(vocab_ - 3)));
    return ids;
  }
  MediaItem MakePicture(const VisionConfig& vision) {
    MediaItem item;
    item.grid_h = static_cast<int32_t>(2 * (1 + Below(4)));
    item.grid_w = static_cast<int32_t>(2 * (1 + Below(4)));
    const int64_t bytes =
        int64_t{item.grid_h} * item.grid_w * vision.in_channels * vision.patch_size * vision.patch_size;
    std::vector<uint8_t> pixels(static_cast<size_t>(bytes));
    for (uint8_t& p : pixels) p = static_cast<uint8_t>(Below(256));
    item.content_hash = KeyedHash(StrCat(
        item.grid_h, " ", std::string_view(reinterpret_cast<const char*>(pixels.data()), pixels.size())));
    item.patch_rows = std::move(pixels);
    item.num_tokens = item.grid_h * item.grid_w / 4;
    return item;
  }
  Turn MakeTurn() {
    Turn turn{Text(1 + Below(50))};
    if (!pictures.empty() && Below(2) == 0) turn.picture = static_cast<int>(Below(std::ssize(pictures)));
    return turn;
  }
  Conversation MakeConversation() {
    Conversation c;
    const int64_t turns = 2 + Below(3);
    if (!conversations.empty() && Below(3) == 0) {  // a fork: another end, perhaps in the middle of a turn
      c = conversations[static_cast<size_t>(Below(std::ssize(conversations)))];
      c.turns.resize(static_cast<size_t>(1 + Below(std::ssize(c.turns))));
      Turn& last = c.turns.back();
      if (Below(2) == 0) {
        last.user.resize(static_cast<size_t>(Below(std::ssize(last.user) + 1)));
        for (int32_t id : Text(1 + Below(30))) last.user.push_back(id);
      }
    } else {
      c.system = Below(4) == 0 ? Text(1 + Below(60)) : systems_[static_cast<size_t>(Below(4))];
      c.sampling.ignore_eos = true;
      c.sampling.max_tokens = answer_tokens_ > 0 ? answer_tokens_ : 4 + Below(8);
      c.sampling.temperature = Below(2) == 0 ? 0.0f : 0.9f;
      c.sampling.seed = static_cast<uint64_t>(Below(1000));
      if (Below(3) == 0) {
        c.sampling.repetition_penalty = 1.3f;
        c.sampling.frequency_penalty = 0.4f;
      }
      if (Below(8) == 0) c.salt = "another tenant";
    }
    while (std::ssize(c.turns) < turns) c.turns.push_back(MakeTurn());
    return c;
  }

  const int32_t vocab_;
  const int64_t answer_tokens_;
  std::mt19937_64 rng_;
  std::vector<Ids> systems_;
};

struct Answer {
  Ids tokens;
  int64_t cached_tokens = 0;
};
using Transcript = std::vector<std::vector<Answer>>;  // by conversation and turn

// What one engine run is like.
struct Mode {
  EngineOptions options;
  size_t at_once = 16;
  bool by_turn =
      false;  // all first turns, then all second ones: else a conversation goes on as soon as it can
};

// Of all that was computed under a salt: how much of this prompt a perfect cache has.
class PerfectCache {
 public:
  int64_t Longest(const std::string& salt, const std::vector<uint64_t>& content) const {
    size_t best = 0;
    const auto of_salt = computed_.find(salt);
    if (of_salt == computed_.end()) return 0;
    for (const auto& other : of_salt->second) {
      size_t n = 0;
      while (n < std::min(other.size(), content.size()) && other[n] == content[n]) ++n;
      best = std::max(best, n);
    }
    return static_cast<int64_t>(best);
  }
  void Add(const std::string& salt, std::vector<uint64_t> content) {
    computed_[salt].push_back(std::move(content));
  }

 private:
  std::map<std::string, std::vector<std::vector<uint64_t>>> computed_;
};

class Talk {
 public:
  Talk(const std::string& family, const Script& script, const Mode& mode, DType dtype)
      : script_(script), mode_(mode) {
    LoadOptions load;
    load.dtype = dtype;
    auto model = LoadModel(context_.ctx, golden::kModels + family, load);
    FD_CHECK(model.ok(), model.status().message());
    placeholder_ = (*model)->config().vision ? 1500 : -1;
    engine_ = std::make_unique<Engine>(std::move(*model), context_.ctx, mode.options);
    engine_->Start();
  }

  // All conversations from their beginning. perfect: one at a time, each prompt must find what it says.
  Transcript Run(PerfectCache* perfect = nullptr) {
    const auto& all = script_.conversations;
    Transcript transcript(all.size());
    std::vector<Prompt> prompts(all.size());
    std::deque<size_t> ready;
    for (size_t i = 0; i < all.size(); ++i) {
      prompts[i].AddText(all[i].system);
      ready.push_back(i);
    }
    std::map<RequestId, size_t> live;
    while (!ready.empty() || !live.empty()) {
      while (!ready.empty() && live.size() < mode_.at_once) {
        const size_t c = ready.front();
        ready.pop_front();
        const Turn& turn = all[c].turns[transcript[c].size()];
        if (turn.picture >= 0) {
          prompts[c].AddPicture(script_.pictures[static_cast<size_t>(turn.picture)], placeholder_);
        }
        prompts[c].AddText(turn.user);
        live[Submit(all[c], prompts[c])] = c;
      }
      for (auto& [id, answer] : Finished()) {
        const size_t c = live.at(id);
        live.erase(id);
        if (perfect != nullptr) Compare(*perfect, all[c], prompts[c], answer);
        prompts[c].AddText(answer.tokens);
        if (perfect != nullptr) {  // the last token was drawn, not computed
          perfect->Add(all[c].salt, {prompts[c].content.begin(), prompts[c].content.end() - 1});
        }
        transcript[c].push_back(std::move(answer));
        if (transcript[c].size() == all[c].turns.size()) continue;
        if (mode_.by_turn) {
          ready.push_back(c);
        } else {
          ready.push_front(c);
        }
      }
    }
    EXPECT_EQ(engine_->Stats().used_pages, 0);
    EXPECT_EQ(engine_->Stats().running, 0);
    return transcript;
  }

  EngineStats stats() const { return engine_->Stats(); }
  // Of Run(perfect).
  int64_t perfect_tokens() const { return perfect_tokens_; }
  int64_t perfect_answers() const { return perfect_answers_; }

 private:
  RequestId Submit(const Conversation& c, const Prompt& prompt) {
    GenerateRequest r;
    r.id = ++last_id_;
    r.token_ids = prompt.ids;
    if (placeholder_ >= 0) {
      for (const auto& axis : prompt.axes) r.positions.insert(r.positions.end(), axis.begin(), axis.end());
      r.position_delta = prompt.next_position - std::ssize(prompt.ids);
      r.vision_expert = prompt.vision_expert;
      r.media = prompt.media;
    }
    r.sampling = c.sampling;
    r.cache_salt = c.salt;
    r.sink = [this](TokenEvent&& event) {
      std::lock_guard lock(mutex_);
      Answer& answer = answers_[event.request_id];
      answer.tokens.insert(answer.tokens.end(), event.token_ids.begin(), event.token_ids.end());
      answer.cached_tokens = event.cached_tokens;
      if (!event.finish_reason) return;
      EXPECT_EQ(event.finish_reason, FinishReason::kLength) << event.error.message();
      finished_.push_back(event.request_id);
      changed_.notify_all();
    };
    const Status status = engine_->Submit(std::move(r));
    FD_CHECK(status.ok(), status.message());
    return last_id_;
  }

  // At least one.
  std::vector<std::pair<RequestId, Answer>> Finished() {
    std::unique_lock lock(mutex_);
    FD_CHECK(changed_.wait_for(lock, std::chrono::seconds(300), [&] { return !finished_.empty(); }), "stuck");
    std::vector<std::pair<RequestId, Answer>> out;
    for (RequestId id : finished_) {
      out.emplace_back(id, std::move(answers_.at(id)));
      answers_.erase(id);
    }
    finished_.clear();
    return out;
  }

  // All whole pages always. Of the page in which the prompt parts from others only so many of those that
  // begin alike are compared (prefix_tree.cc), so a few tokens may be missed.
  void Compare(const PerfectCache& perfect, const Conversation& c, const Prompt& prompt,
               const Answer& answer) {
    const int64_t there =
        std::min<int64_t>(perfect.Longest(c.salt, prompt.content), std::ssize(prompt.ids) - 1);
    EXPECT_LE(answer.cached_tokens, there) << "of " << prompt.ids.size();
    EXPECT_GE(answer.cached_tokens, there / kKvPageTokens * kKvPageTokens) << "of " << prompt.ids.size();
    perfect_tokens_ += there;
    perfect_answers_ += answer.cached_tokens == there;
  }

  const Script& script_;
  const Mode mode_;
  golden::TestContext context_{1};  // a second thread would gain nothing on such a model
  int32_t placeholder_ = -1;
  RequestId last_id_ = 0;
  int64_t perfect_tokens_ = 0, perfect_answers_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Answer> answers_;
  std::vector<RequestId> finished_;
  std::unique_ptr<Engine> engine_;  // ends before what its sinks use
};

void ExpectSame(const Transcript& got, const Transcript& expected) {
  ASSERT_EQ(got.size(), expected.size());
  int different = 0;
  for (size_t c = 0; c < got.size(); ++c) {
    ASSERT_EQ(got[c].size(), expected[c].size());
    for (size_t t = 0; t < got[c].size(); ++t) {
      if (got[c][t].tokens == expected[c][t].tokens) continue;
      if (++different <= 3) ADD_FAILURE() << "conversation " << c << ", turn " << t << " answers otherwise";
      break;
    }
  }
  EXPECT_EQ(different, 0);
}

int64_t CachedTokens(const Transcript& transcript) {
  int64_t sum = 0;
  for (const auto& answers : transcript) {
    for (const Answer& answer : answers) sum += answer.cached_tokens;
  }
  return sum;
}

int64_t Percent() {
  const char* text = std::getenv("FASTDEPLOY_CONVERSATIONS");
  return text == nullptr ? 100 : std::atoll(text);
}

void RunFamily(const std::string& family, int64_t count, DType dtype,
               std::optional<DType> kv_dtype = std::nullopt) {
  // On CUDA products of other shapes add in another order, so near ties fall otherwise.
  if (golden::DeviceUnderTest().type != DeviceType::kCpu) GTEST_SKIP() << "the CPU alone keeps every bit";
  auto config = LoadModelConfig(golden::kModels + family);
  ASSERT_TRUE(config.ok()) << config.status().message();
  const Script script(*config, std::max<int64_t>(count * Percent() / 100, 4), 7);
  Mode base;
  base.options.max_model_len = 1024;
  base.options.max_num_seqs = 16;
  base.options.max_num_batched_tokens = 512;
  base.options.num_kv_pages = 3000;
  base.options.kv_dtype = kv_dtype;
  base.options.max_media_tokens = 64;
  base.options.encoder_cache_tokens = 1024;
  auto begin = Clock::now();
  const auto report = [&](const char* mode, const Transcript& transcript, const EngineStats& stats) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    std::printf("%-12s %6.2f s, %7lld tokens computed, %7lld cached, %lld preemptions\n", mode, seconds,
                static_cast<long long>(stats.prompt_tokens), static_cast<long long>(CachedTokens(transcript)),
                static_cast<long long>(stats.preemptions));
    std::fflush(stdout);
    begin = Clock::now();
  };

  Mode off = base;
  off.options.prefix_caching = false;
  Transcript expected;
  {
    Talk talk(family, script, off, dtype);
    expected = talk.Run();
    report("off", expected, talk.stats());
    EXPECT_EQ(CachedTokens(expected), 0);
  }
  int64_t cached = 0;
  {
    SCOPED_TRACE("one at a time, cold, then all there");
    Mode alone = base;
    alone.at_once = 1;
    Talk talk(family, script, alone, dtype);
    PerfectCache perfect;
    const Transcript cold = talk.Run(&perfect);
    report("cold", cold, talk.stats());
    ExpectSame(cold, expected);
    cached = CachedTokens(cold);
    EXPECT_GT(cached, 0);
    int64_t turns = 0;
    for (const Conversation& c : script.conversations) turns += std::ssize(c.turns);
    EXPECT_GE(talk.perfect_answers(), turns * 98 / 100);
    EXPECT_GE(cached, talk.perfect_tokens() * 99 / 100);
    std::printf("%lld of %lld turns and %lld of %lld tokens found as by a perfect cache\n",
                static_cast<long long>(talk.perfect_answers()), static_cast<long long>(turns),
                static_cast<long long>(cached), static_cast<long long>(talk.perfect_tokens()));
    const Transcript hit = talk.Run();
    report("hit", hit, talk.stats());
    ExpectSame(hit, expected);
    Prompt prompt;
    for (size_t c = 0; c < hit.size(); ++c) {
      int64_t tokens = std::ssize(script.conversations[c].system);
      for (size_t t = 0; t < hit[c].size(); ++t) {
        const Turn& turn = script.conversations[c].turns[t];
        tokens += std::ssize(turn.user);
        if (turn.picture >= 0) tokens += script.pictures[static_cast<size_t>(turn.picture)].num_tokens;
        ASSERT_EQ(hit[c][t].cached_tokens, tokens - 1) << "conversation " << c << ", turn " << t;
        tokens += std::ssize(hit[c][t].tokens);
      }
    }
  }
  {
    SCOPED_TRACE("many at once, small steps, overlapped");
    Mode many = base;
    many.options.overlap = true;
    many.options.max_num_batched_tokens = 48;
    Talk talk(family, script, many, dtype);
    const Transcript got = talk.Run();
    report("many", got, talk.stats());
    ExpectSame(got, expected);
    EXPECT_GT(CachedTokens(got), 0);
  }
  {
    SCOPED_TRACE("evicted");
    Mode evicted = base;
    evicted.options.num_kv_pages = 16;  // of the longest prompt and little more
    evicted.at_once = 1;
    evicted.by_turn = true;
    Talk talk(family, script, evicted, dtype);
    const Transcript got = talk.Run();
    report("evicted", got, talk.stats());
    ExpectSame(got, expected);
    EXPECT_LT(CachedTokens(got), cached / 2);  // system prompts at most
  }
  {
    SCOPED_TRACE("swapped: as few pages, but the host has room for all that leave them");
    Mode swapped = base;
    swapped.options.num_kv_pages = 16;
    swapped.options.num_host_pages = 8000;
    swapped.at_once = 1;
    swapped.by_turn = true;
    Talk talk(family, script, swapped, dtype);
    const Transcript got = talk.Run();
    report("swapped", got, talk.stats());
    ExpectSame(got, expected);
    const EngineStats stats = talk.stats();
    std::printf("%lld pages out, %lld in, %lld tokens found on the host\n",
                static_cast<long long>(stats.pages_moved_out), static_cast<long long>(stats.pages_moved_in),
                static_cast<long long>(stats.prefix_host_hit_tokens));
    EXPECT_GT(stats.free_host_pages, 0);  // so nothing was lost
    EXPECT_GT(stats.pages_moved_in, 0);
    EXPECT_GE(CachedTokens(got), cached * 99 / 100);
    EXPECT_GT(stats.prefix_host_hit_tokens, CachedTokens(got) / 2);
    const Transcript again = talk.Run();
    report("and again", again, talk.stats());
    ExpectSame(again, expected);
  }
  {
    SCOPED_TRACE("swapped, many at once, overlapped, and lost there too");
    Mode swapped = base;
    swapped.options.num_kv_pages = 40;
    swapped.options.num_host_pages = 60;
    swapped.options.overlap = true;
    swapped.options.max_num_batched_tokens = 100;
    Talk talk(family, script, swapped, dtype);
    const Transcript got = talk.Run();
    report("swapped, few", got, talk.stats());
    ExpectSame(got, expected);
    EXPECT_GT(talk.stats().pages_moved_in, 0);
  }
  {
    SCOPED_TRACE("preempted");  // answers that grow by several pages
    const Script grown(*config, 10, 8, 150);
    Transcript growing;
    {
      Talk talk(family, grown, off, dtype);
      growing = talk.Run();
      EXPECT_EQ(talk.stats().preemptions, 0);
    }
    Mode scarce = base;
    scarce.options.num_kv_pages = 24;
    scarce.options.max_num_batched_tokens = 200;
    Talk talk(family, grown, scarce, dtype);
    const Transcript got = talk.Run();
    report("preempted", got, talk.stats());
    ExpectSame(got, growing);
    EXPECT_GT(talk.stats().preemptions, 0);
    scarce.options.num_host_pages = 200;
    Talk swapping(family, grown, scarce, dtype);
    const Transcript swapped = swapping.Run();
    report("and swapped", swapped, swapping.stats());
    ExpectSame(swapped, growing);
    EXPECT_GT(swapping.stats().preemptions, 0);
    EXPECT_GT(swapping.stats().pages_moved_in, 0);
  }
}

TEST(Conversations, Dense) { RunFamily("ernie4_5", 150, DType::kFloat32); }
TEST(Conversations, MoeInBFloat16) { RunFamily("ernie4_5_moe", 100, DType::kBFloat16); }
TEST(Conversations, MoeOnPagesOfInt8) { RunFamily("ernie4_5_moe", 40, DType::kBFloat16, DType::kInt8); }
TEST(Conversations, DenseOnPagesOfFp8) { RunFamily("ernie4_5", 40, DType::kFloat32, DType::kFloat8E4M3); }
TEST(Conversations, PicturesInBFloat16) { RunFamily("ernie4_5_vl_moe", 250, DType::kBFloat16); }

}  // namespace
}  // namespace fd
