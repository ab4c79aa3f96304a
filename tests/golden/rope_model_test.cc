// ERNIE-4.5 with every kind of rope scaling against transformers, in float32 (make_rope.py).
#include <gtest/gtest.h>

#include "base/files.h"
#include "model/weights/write_for_test.h"
#include "tests/golden/model_run.h"

namespace fd::golden {
namespace {

TEST(RopeModel, LogitsOfEveryKind) {
  const std::string base = kModels + "ernie4_5";
  const GoldenFile prompts(kCases + "ernie4_5.safetensors"), golden("tests/golden/rope/logits.safetensors");
  const auto cases = ReadJsonFile("tests/golden/rope/configs.json");
  ASSERT_TRUE(cases.ok()) << cases.status().message();
  int count = 0;
  for (const auto& [name, entry] : cases->as_object()) {
    SCOPED_TRACE(name);
    const JsonObject& c = entry.as_object();
    FolderForTest folder;
    folder.CopyFrom(base);
    auto config = ReadJsonFile(base + "/config.json");
    for (const auto& [key, value] : c.Find("changes")->as_object()) config->as_object().Set(key, value);
    WriteFileForTest(folder.File("config.json"), WriteJson(*config));

    Machine machine(folder.path(), DType::kFloat32, 2, {}, {}, c.Find("max_model_len")->as_int());
    const std::string prompt_name = c.Find("prompt")->as_string();
    Prompt prompt;
    prompt.ids = prompts.Ints(prompt_name + ".input_ids");
    const std::vector<int32_t> positions = prompts.Ints(prompt_name + ".positions");
    for (int64_t chunk : {0, 7}) {
      Sequence sequence(machine, prompt);
      std::vector<float> all;
      for (const auto& row : sequence.Prefill(chunk, {positions.begin(), positions.end()}))
        all.insert(all.end(), row.begin(), row.end());
      EXPECT_LE(MaxAbsDifference(all, golden.Floats(name + ".logits")), 1e-3f) << "chunks of " << chunk;
    }
    ++count;
  }
  EXPECT_EQ(count, 6);
}

}  // namespace
}  // namespace fd::golden
