#include "chat_template_flags.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace fd {
namespace {

std::string RenderedText(const ChatTemplate& chat_template) {
  const Json messages(JsonArray{Json(JsonObject{{"role", "user"}, {"content", "hi"}})});
  const auto pieces = chat_template.Render(messages, Json(), {}, true);
  std::string text;
  if (!pieces.ok()) return pieces.status().message();
  for (const PromptPiece& piece : *pieces) text += piece.text;
  return text;
}

TEST(ChatTemplateFlags, FileOrText) {
  const std::string path = testing::TempDir() + "template_of_a_flag.jinja";
  std::ofstream(path) << "{{ bos_token }}{{ messages[0].content }}!";
  const JsonObject tokens{{"bos_token", "<s>"}};
  auto loaded = ReadChatTemplate(path, tokens);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(RenderedText(*loaded), "<s>hi!");
  loaded = ReadChatTemplate("{{ messages[0].role }}", tokens);
  ASSERT_TRUE(loaded.ok());
  EXPECT_EQ(RenderedText(*loaded), "user");
  for (const char* bad : {"no/such/file.jinja", "{% if %}", "{{"}) {
    const Status status = ReadChatTemplate(bad, tokens).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("--chat-template"), std::string::npos) << status.message();
  }
}

TEST(ChatTemplateFlags, GenerationConfig) {
  const std::string folder = testing::TempDir() + "generation_folder";
  std::filesystem::create_directories(folder);
  ModelConfig config;
  config.vocab_size = 10;
  config.default_temperature = 0.2f;
  config.default_min_p = 0.3f;
  ModelConfig same = config;
  ASSERT_TRUE(ChooseGenerationConfig("auto", same).ok());
  EXPECT_EQ(same, config);
  ModelConfig none = config;
  ASSERT_TRUE(ChooseGenerationConfig("vllm", none).ok());
  EXPECT_FALSE(none.default_temperature || none.default_min_p);
  EXPECT_EQ(none.default_top_p, 1.0f);
  std::ofstream(folder + "/generation_config.json") << R"({"top_k": 5})";
  ModelConfig other = config;
  ASSERT_TRUE(ChooseGenerationConfig(folder, other).ok());
  EXPECT_FALSE(other.default_temperature || other.default_min_p);
  EXPECT_EQ(other.default_top_k, 5);
  EXPECT_FALSE(ChooseGenerationConfig("no/such/folder", other).ok());
}

}  // namespace
}  // namespace fd
