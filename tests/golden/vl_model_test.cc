// ERNIE-4.5-VL in float32 against transformers: tower and resampler, all eleven conversations, also in chunks
// whose border falls inside a picture, and in every style of config.json.
#include <gtest/gtest.h>

#include <filesystem>

#include "model/weights/write_for_test.h"
#include "tests/golden/model_run.h"

namespace fd::golden {
namespace {

constexpr float kTolerance = 1e-3f;
const std::string kFamily = "ernie4_5_vl_moe";

class VlModel : public testing::Test {
 protected:
  VlModel() : golden_(kCases + kFamily + ".safetensors") {
    auto json = ReadJsonFile(kCases + kFamily + ".json");
    FD_CHECK(json.ok(), json.status().message());
    json_ = *json;
  }
  const JsonArray& Cases() const { return json_.Find("cases")->as_array(); }
  const Json& Case(const std::string& name) const {
    for (const Json& c : Cases()) {
      if (c.Find("name")->as_string() == name) return c;
    }
    FD_CHECK(false, name);
    return json_;
  }

  void CheckCase(Machine& machine, const Prompt& prompt, const std::string& key, int64_t chunk, bool greedy) {
    SCOPED_TRACE(StrCat(key, " in chunks of ", chunk));
    Sequence sequence(machine, prompt);
    std::vector<float> logits = sequence.Prefill(chunk, {static_cast<int64_t>(prompt.ids.size()) - 1})[0];
    EXPECT_LE(MaxAbsDifference(logits, golden_.Floats(key + ".logits")), kTolerance);
    if (!greedy) return;
    const std::vector<int32_t> ids = golden_.Ints(key + ".greedy_ids"),
                               top5 = golden_.Ints(key + ".top5_ids");
    const std::vector<float> logprobs = golden_.Floats(key + ".greedy_logprobs"),
                             top5_logprobs = golden_.Floats(key + ".top5_logprobs");
    for (size_t step = 0; step < ids.size(); ++step) {
      ASSERT_EQ(Argmax(logits), ids[step]) << "step " << step;
      std::vector<float> p = LogSoftmax(logits);
      EXPECT_NEAR(p[static_cast<size_t>(ids[step])], logprobs[step], kTolerance);
      for (size_t k = 0; k < 5; ++k) {
        EXPECT_NEAR(p[static_cast<size_t>(top5[5 * step + k])], top5_logprobs[5 * step + k], kTolerance);
      }
      if (step + 1 < ids.size()) logits = sequence.Decode(ids[step]);
    }
  }

  GoldenFile golden_;
  Json json_;
};

TEST_F(VlModel, AllCases) {
  Machine machine(kModels + kFamily, DType::kFloat32);
  ASSERT_EQ(Cases().size(), 11u);
  for (const Json& c : Cases()) {
    const std::string name = c.Find("name")->as_string();
    Prompt prompt = LoadVlPrompt(machine, golden_, c);
    if (!c.Find("images")->as_array().empty() || !c.Find("videos")->as_array().empty()) {
      EXPECT_EQ(prompt.delta, c.Find("delta")->as_int());
    }
    for (int64_t chunk : {0, 64, 7, 3}) CheckCase(machine, prompt, name, chunk, true);
  }
}

TEST_F(VlModel, StartAndEndTokensInTextExperts) {
  Machine machine(kModels + kFamily, DType::kFloat32);
  for (const char* name : {"one_image", "two_turns"}) {
    Prompt prompt = LoadVlPrompt(machine, golden_, Case(name), /*patches_only=*/true);
    CheckCase(machine, prompt, std::string(name) + ".patches_only_in_vision_experts", 0, false);
  }
}

TEST_F(VlModel, PositionsOfTheSpatialRule) {
  Machine machine(kModels + kFamily, DType::kFloat32);
  Prompt prompt = LoadVlPrompt(machine, golden_, Case("video_long"), false, "spatial_rule.position_ids");
  CheckCase(machine, prompt, "video_long.spatial_rule", 0, true);
}

TEST_F(VlModel, VisionAndHiddenStates) {
  Machine machine(kModels + kFamily, DType::kFloat32);
  std::map<std::string, std::vector<float>> seen;
  machine.model().probe = [&](const std::string& name, const TensorView& value) {
    const bool encoder = name == "vision_output" || name == "resampler_output";
    seen[name] = ToFloats(encoder ? value : value.Rows(value.dim(0) - 1, 1));
  };
  for (const char* name : {"one_image", "video_odd", "two_turns"}) {
    SCOPED_TRACE(name);
    seen.clear();
    const std::string key = std::string(name) + ".";
    Prompt prompt = LoadVlPrompt(machine, golden_, Case(name));
    for (const char* output : {"vision_output", "resampler_output"}) {
      if (!golden_.Has(key + output)) continue;
      EXPECT_LE(MaxAbsDifference(seen[output], golden_.Floats(key + output)), 1e-4f) << output;
    }
    Sequence(machine, prompt).Prefill(0, {static_cast<int64_t>(prompt.ids.size()) - 1});
    for (const char* state : {"embed", "layer0", "layer1", "layer2", "final_norm"}) {
      if (!golden_.Has(key + "hidden." + state)) continue;
      EXPECT_LE(MaxAbsDifference(seen[state], golden_.Floats(key + "hidden." + state)), 1e-4f) << state;
    }
  }
}

// A picture's rows do not depend on what else is encoded in the same call.
TEST_F(VlModel, EncodingTogetherOrAlone) {
  Machine machine(kModels + kFamily, DType::kBFloat16);
  std::vector<uint8_t> image = golden_.Bytes("one_image.image0.rows"),
                       video = golden_.Bytes("video_odd.video0.rows");
  int64_t planned = 0;
  auto encode = [&](std::vector<uint8_t> rows, std::vector<EncodeBatch::Grid> grids) {
    EncodeBatch batch;
    batch.grids = std::move(grids);
    const Tensor patch_rows = machine.Upload(
        TensorView(rows.data(), DType::kUInt8, Device{}, {static_cast<int64_t>(rows.size()) / 588, 588}));
    batch.patch_rows = patch_rows;
    Tensor out(DType::kBFloat16, machine.ctx().device,
               {batch.OutputTokens(), machine.model().config().hidden_size});
    machine.model().Encode(machine.ctx(), out, batch);
    int64_t frame_rows = 0;
    for (const auto& g : batch.grids) frame_rows = std::max(frame_rows, g.h * g.w);
    planned = std::max(planned,
                       EncodeScratchBytes(machine.model().config(), DType::kBFloat16, batch.patch_rows.dim(0),
                                          frame_rows, 2, machine.ctx().device.type));
    EXPECT_LE(machine.workspace().peak_bytes(), planned);
    return ToFloats(out);
  };
  auto grid = [&](const char* name, const char* kind) {
    const JsonArray& g = Case(name).Find(kind)->as_array()[0].Find("grid_thw")->as_array();
    return EncodeBatch::Grid{g[0].as_int(), g[1].as_int(), g[2].as_int()};
  };
  const EncodeBatch::Grid gi = grid("one_image", "images"), gv = grid("video_odd", "videos");
  std::vector<float> alone = encode(image, {gi}), second = encode(video, {gv});
  std::vector<uint8_t> both = video;
  both.insert(both.end(), image.begin(), image.end());
  std::vector<float> together = encode(both, {gv, gi});
  second.insert(second.end(), alone.begin(), alone.end());
  if (OnCuda()) {  // matrix products of other shapes add in another order
    EXPECT_LE(Rms(together, second), 0.02 * StandardDeviation(second));
  } else {
    EXPECT_EQ(MaxAbsDifference(together, second), 0.0f);
  }
}

TEST_F(VlModel, EveryConfigStyleLoads) {
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    for (const char* style : {"config_transformers5.json", "config_flat.json"}) {
      const std::string source = kModels + family + "/" + style;
      if (!std::filesystem::exists(source)) continue;
      SCOPED_TRACE(source);
      FolderForTest folder;
      folder.CopyFrom(kModels + family);
      std::filesystem::copy_file(source, folder.File("config.json"),
                                 std::filesystem::copy_options::overwrite_existing);
      Machine machine(folder.path(), DType::kFloat32);
      if (machine.model().config().vision) {
        CheckCase(machine, LoadVlPrompt(machine, golden_, Case("one_image")), "one_image", 0, true);
      } else {
        GoldenFile golden(kCases + family + ".safetensors");
        Prompt prompt;
        prompt.ids = golden.Ints("p7.input_ids");
        std::vector<float> last = Sequence(machine, prompt).Prefill(0, {6})[0],
                           expected = golden.Floats("p7.logits");
        expected.erase(expected.begin(), expected.end() - static_cast<int64_t>(last.size()));
        EXPECT_LE(MaxAbsDifference(last, expected), kTolerance);
      }
    }
  }
}

}  // namespace
}  // namespace fd::golden
