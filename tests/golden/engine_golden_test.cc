// The golden prompts through the real Engine in float32: scheduler, pages, uploads, encoder cache and
// sampling together must give transformers' greedy tokens, whatever the token budget and whatever else runs.
#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>

#include "base/json.h"
#include "engine/engine.h"
#include "model/weights/safetensors.h"
#include "tests/golden/device_under_test.h"

namespace fd {
namespace {

const char kModels[] = "tests/golden/models/";
const char kCases[] = "tests/golden/cases/";

template <typename T>
std::vector<T> Read(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* info = file.Find(name);
  FD_CHECK(info != nullptr, name);
  std::vector<T> out(info->size_bytes / sizeof(T));
  std::memcpy(out.data(), file.Data(*info), info->size_bytes);
  return out;
}

struct GoldenCase {
  std::string name;
  GenerateRequest request;
  std::vector<int32_t> greedy_ids;
  std::vector<float> greedy_logprobs;
};

void ReadExpected(const SafetensorsFile& file, GoldenCase& c) {
  c.request.token_ids = Read<int32_t>(file, c.name + ".input_ids");
  c.greedy_ids = Read<int32_t>(file, c.name + ".greedy_ids");
  c.greedy_logprobs = Read<float>(file, c.name + ".greedy_logprobs");
  c.request.sampling.temperature = 0;
  c.request.sampling.ignore_eos = true;
  c.request.sampling.max_tokens = static_cast<int64_t>(c.greedy_ids.size());
}

std::vector<GoldenCase> TextCases(const std::string& family) {
  auto file = SafetensorsFile::Open(StrCat(kCases, family, ".safetensors"));
  FD_CHECK(file.ok(), file.status().message());
  std::vector<GoldenCase> cases;
  for (const char* name : {"p1", "p7", "p64", "p65", "p200"}) {
    cases.push_back({name});
    ReadExpected(**file, cases.back());
  }
  return cases;
}

std::vector<GoldenCase> VlCases() {
  auto file = SafetensorsFile::Open(StrCat(kCases, "ernie4_5_vl_moe.safetensors"));
  FD_CHECK(file.ok(), file.status().message());
  auto json = ReadJsonFile(StrCat(kCases, "ernie4_5_vl_moe.json"));
  FD_CHECK(json.ok(), json.status().message());
  std::vector<GoldenCase> cases;
  for (const Json& entry : json->Find("cases")->as_array()) {
    GoldenCase c;
    c.name = entry.Find("name")->as_string();
    ReadExpected(**file, c);
    GenerateRequest& r = c.request;
    r.positions = Read<int32_t>(**file, c.name + ".position_ids");
    r.position_delta = entry.Find("delta")->as_int();
    for (int32_t type : Read<int32_t>(**file, c.name + ".moe_mm_token_type_ids")) {
      r.vision_expert.push_back(type != 0);
    }
    // Placeholders of one kind that follow each other are one picture (1) or video (2).
    const std::vector<int32_t> types = Read<int32_t>(**file, c.name + ".mm_token_type_ids");
    size_t seen[3] = {};
    for (size_t at = 0; at < types.size();) {
      size_t end = at;
      while (end < types.size() && types[end] == types[at]) ++end;
      if (types[at] != 0) {
        const bool video = types[at] == 2;
        const size_t k = seen[types[at]]++;
        const JsonArray& grid =
            entry.Find(video ? "videos" : "images")->as_array().at(k).Find("grid_thw")->as_array();
        const auto number = [&grid](size_t i) { return static_cast<int32_t>(grid.at(i).as_int()); };
        const auto rows = Read<uint8_t>(**file, StrCat(c.name, video ? ".video" : ".image", k, ".rows"));
        // A video is one item for each pair of frames, as the server makes them.
        const int32_t items = video ? number(0) / 2 : 1;
        const auto item_bytes = static_cast<int64_t>(rows.size()) / items;
        for (int32_t i = 0; i < items; ++i) {
          auto item = std::make_shared<MediaItem>();
          item->grid_t = video ? 2 : 1;
          item->grid_h = number(1);
          item->grid_w = number(2);
          item->patch_rows =
              std::vector<uint8_t>(rows.begin() + i * item_bytes, rows.begin() + (i + 1) * item_bytes);
          item->content_hash =
              KeyedHash(StrCat(item->grid_t, " ", item->grid_h, " ", item->grid_w, " ",
                               std::string_view(reinterpret_cast<const char*>(item->patch_rows.data()),
                                                item->patch_rows.size())));
          item->num_tokens = static_cast<int64_t>(end - at) / items;
          item->first_token = static_cast<int64_t>(at) + i * item->num_tokens;
          r.media.push_back(item);
        }
      }
      at = end;
    }
    cases.push_back(std::move(c));
  }
  FD_CHECK_EQ(cases.size(), 11u);
  return cases;
}

using Logprobs = std::map<size_t, std::vector<float>>;
using Tokens = std::map<size_t, std::vector<int32_t>>;

// All cases, `copies` of each, submitted at once. *logprobs: of what was drawn, by request. tokens, if there:
// filled with what was drawn, which is then compared with nothing.
void RunCasesInto(const std::string& family, const std::vector<GoldenCase>& cases, EngineOptions options,
                  int copies, bool preempts, Logprobs* logprobs, EngineStats* stats,
                  Tokens* tokens = nullptr) {
  SCOPED_TRACE(StrCat(family, ", ", options.max_num_batched_tokens, " tokens a step, ", options.max_num_seqs,
                      " sequences, ", options.num_kv_pages, " pages", options.overlap ? ", overlap" : "",
                      options.cuda_graphs ? ", graphs" : ""));
  ThreadPool threads(2);
  Workspace workspace(golden::DeviceUnderTest(), int64_t{1} << 20);
  ops::Context ctx;
  ctx.device = golden::DeviceUnderTest();
  ctx.stream = golden::StreamUnderTest();
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  LoadOptions load;
  load.dtype = DType::kFloat32;
  auto model = LoadModel(ctx, kModels + family, load);
  ASSERT_TRUE(model.ok()) << model.status().message();
  Engine engine(std::move(*model), ctx, options);
  const Status prepared = engine.Prepare();
  ASSERT_TRUE(prepared.ok()) << prepared.message();

  std::mutex mutex;
  std::condition_variable changed;
  std::map<RequestId, TokenEvent> results;
  size_t finished = 0;
  for (int copy = 0; copy < copies; ++copy) {
    for (size_t i = 0; i < cases.size(); ++i) {
      GenerateRequest r = cases[i].request;
      r.id = copy * cases.size() + i;
      r.sink = [&](TokenEvent&& event) {
        std::lock_guard lock(mutex);
        TokenEvent& all = results[event.request_id];
        all.token_ids.insert(all.token_ids.end(), event.token_ids.begin(), event.token_ids.end());
        all.logprobs.insert(all.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
        all.finish_reason = event.finish_reason;
        finished += event.finish_reason.has_value();
        changed.notify_all();
      };
      Status status = engine.Submit(std::move(r));
      ASSERT_TRUE(status.ok()) << status.message();
    }
  }
  engine.Start();
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(
        changed.wait_for(lock, std::chrono::seconds(300), [&] { return finished == copies * cases.size(); }));
  }
  for (const auto& [id, result] : results) {
    if (tokens != nullptr) {
      (*tokens)[id] = result.token_ids;
      continue;
    }
    const GoldenCase& c = cases[id % cases.size()];
    EXPECT_EQ(result.finish_reason, FinishReason::kLength) << c.name;
    EXPECT_EQ(result.token_ids, c.greedy_ids) << c.name;
    ASSERT_EQ(result.logprobs.size(), c.greedy_logprobs.size());
    for (size_t i = 0; i < result.logprobs.size(); ++i) {
      ASSERT_NEAR(result.logprobs[i], c.greedy_logprobs[i], 1e-3) << c.name << " token " << i;
    }
  }
  for (const auto& [id, result] : results) (*logprobs)[id] = result.logprobs;
  if (stats != nullptr) *stats = engine.Stats();
  EXPECT_LE(engine.Stats().max_step_tokens, options.max_num_batched_tokens);
  EXPECT_EQ(engine.Stats().used_pages, 0);
  EXPECT_EQ(engine.Stats().preemptions > 0, preempts);
}

Logprobs RunCases(const std::string& family, const std::vector<GoldenCase>& cases, EngineOptions options,
                  int copies, bool preempts = false, EngineStats* stats = nullptr) {
  Logprobs logprobs;
  RunCasesInto(family, cases, options, copies, preempts, &logprobs, stats);
  return logprobs;
}

EngineOptions Options(int64_t budget, int64_t seqs, int64_t pages) {
  EngineOptions o;
  o.max_num_batched_tokens = budget;
  o.max_num_seqs = seqs;
  o.num_kv_pages = pages;
  o.max_media_tokens = 256;
  o.encoder_cache_tokens = 4096;
  return o;
}

void RunFamily(const std::string& family, const std::vector<GoldenCase>& cases) {
  for (int64_t budget : {7, 64, 4096}) RunCases(family, cases, Options(budget, 16, 100), 2);
  for (const auto& [overlap, graphs] :
       {std::pair{true, false}, std::pair{false, true}, std::pair{true, true}}) {
    EngineOptions o = Options(64, 16, 100);
    o.overlap = overlap;
    o.cuda_graphs = graphs;
    RunCases(family, cases, o, 2);
    o.num_kv_pages = 12;
    o.max_num_batched_tokens = 100;
    RunCases(family, cases, o, 2);
  }
  RunCases(family, cases, Options(64, 1, 4), 1);  // one after the other
  // Several sequences that need their second page while decoding, and too few of them: some start again.
  std::vector<GoldenCase> growing;
  for (const GoldenCase& c : cases) {
    const int64_t prompt = static_cast<int64_t>(c.request.token_ids.size());
    if (prompt <= kKvPageTokens && prompt + c.request.sampling.max_tokens > kKvPageTokens + 1) {
      growing.push_back(c);
    }
  }
  ASSERT_FALSE(growing.empty());
  RunCases(family, growing, Options(200, 16, 5), 6, /*preempts=*/true);
}

// The same tokens and log-probabilities, whether a picture was kept, encoded alone or together with others;
// on the CPU to the bit, which RunCases cannot see, so all runs are compared with each other.
TEST(EngineGolden, KeptAloneOrTogether) {
  const std::vector<GoldenCase> cases = VlCases();
  Logprobs first;
  for (const int64_t cache : {4096, 0}) {
    for (const int64_t batch : {1, 64, 4096}) {
      EngineOptions o = Options(100, 16, 100);
      o.encoder_cache_tokens = cache;
      o.max_encoder_batch_tokens = batch;
      EngineStats stats;
      const Logprobs logprobs = RunCases("ernie4_5_vl_moe", cases, o, 3, false, &stats);
      if (first.empty()) first = logprobs;
      if (golden::DeviceUnderTest().type == DeviceType::kCpu) {
        EXPECT_EQ(logprobs, first) << "cache " << cache << " batch " << batch;
      }
      if (cache > 0) {
        EXPECT_GE(stats.encoder_hits, 2 * stats.encoded_items);  // two of three copies
        EXPECT_GT(stats.encoder_kept_tokens, 0);
      } else {
        EXPECT_EQ(stats.encoder_kept_tokens, 0);
      }
    }
  }
}

// Penalties, biases, bans and log-probabilities: one by one in the plain loop, and the same tokens in every
// company, recorded or not, overlapped or not.
TEST(EngineGolden, ControlsGiveTheSameTokensHoweverTheyRun) {
  std::vector<GoldenCase> cases = TextCases("ernie4_5");
  for (size_t i = 0; i < cases.size(); ++i) {
    SamplingParams& p = cases[i].request.sampling;
    p.max_tokens = 48;
    if (i == 3) continue;  // one without wishes among them
    p.repetition_penalty = 1.1f + 0.1f * static_cast<float>(i);
    p.frequency_penalty = i == 2 ? 0.6f : 0.0f;
    p.presence_penalty = i >= 2 ? 0.4f : 0.0f;
    p.logit_bias = {{static_cast<int32_t>(40 + i), 2.0f}, {7, -100.0f}};
    p.bad_words = {{cases[i].greedy_ids.at(0), cases[i].greedy_ids.at(1)}, {cases[i].greedy_ids.at(2)}};
    p.top_logprobs = static_cast<int32_t>(5 * i);
    if (i == 1) {
      p.temperature = 0.9f;
      p.top_p = 0.9f;
      p.seed = 5;
    }
  }
  Logprobs logprobs;
  Tokens alone;
  RunCasesInto("ernie4_5", cases, Options(4096, 1, 20), 1, false, &logprobs, nullptr, &alone);
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_EQ(alone[i].size(), 48u);
    const std::vector<int32_t> greedy = cases[i].greedy_ids;
    const bool same = std::equal(greedy.begin(), greedy.begin() + 3, alone[i].begin());
    EXPECT_EQ(same, i == 3) << "case " << i;
    cases[i].greedy_ids = alone[i];
    cases[i].greedy_logprobs = logprobs[i];
  }
  for (const auto& [overlap, graphs] :
       {std::pair{false, false}, std::pair{true, false}, std::pair{false, true}, std::pair{true, true}}) {
    for (int64_t budget : {7, 64, 4096}) {
      EngineOptions o = Options(budget, 16, 100);
      o.overlap = overlap;
      o.cuda_graphs = graphs;
      RunCases("ernie4_5", cases, o, 2);
    }
  }
}

TEST(EngineGolden, Dense) { RunFamily("ernie4_5", TextCases("ernie4_5")); }
TEST(EngineGolden, Moe) { RunFamily("ernie4_5_moe", TextCases("ernie4_5_moe")); }
TEST(EngineGolden, VisionLanguage) { RunFamily("ernie4_5_vl_moe", VlCases()); }

}  // namespace
}  // namespace fd
