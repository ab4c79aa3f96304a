#include "server/chat/chat_template.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

std::string Marked(const std::string& source, const char* messages, JsonObject kwargs = {}) {
  StatusOr<ChatTemplate> t = ChatTemplate::FromSource(source, JsonObject{{"bos_token", "<s>"}});
  if (!t.ok()) return t.status().message();
  auto pieces = t->Render(*ParseJson(messages), nullptr, kwargs, true);
  if (!pieces.ok()) return pieces.status().param() + ": " + pieces.status().message();
  std::string out;
  for (const PromptPiece& p : *pieces) out += p.from_user ? "[" + p.text + "]" : p.text;
  return out;
}

const char* kHi = R"([{"role": "user", "content": " <s> a,<s>b "}])";

TEST(ChatTemplate, UserTextIsMarkedThroughEveryOperation) {
  EXPECT_EQ(Marked("{{ bos_token ~ messages[0].content | trim ~ '</s>' }}", kHi), "<s>[<s> a,<s>b]</s>");
  EXPECT_EQ(Marked("{{ '(' + messages[0].content.strip().split(',') | join('<s>') + ')' }}", kHi),
            "([<s> a]<s>[<s>b])");
  EXPECT_EQ(Marked("{{ messages[0].content.replace('<s>', '<x>') }}", kHi), "[ ]<x>[ a,]<x>[b ]");
  EXPECT_EQ(Marked("{{ messages[0].content[1:4] }}|{{ messages[0].content | upper }}", kHi),
            "[<s>]|[ <S> A,<S>B ]");
  EXPECT_EQ(Marked("{% set x %}<{{ messages[0].role }}>{% endset %}{{ x }}", kHi), "<[user]>");
  EXPECT_EQ(Marked("{{ '%s={}' % messages[0].role }}{{ '<{}>'.format(messages[0].role) }}", kHi),
            "[user]={}<[user]>");
  EXPECT_EQ(Marked("{{ messages[0] | tojson }}", R"([{"role": "user"}])"), "[{\"role\": \"user\"}]");
  EXPECT_EQ(Marked("{{ {'r': messages[0].role} | tojson }}", kHi), "{\"r\": \"[user]\"}");
  EXPECT_EQ(Marked("{{ n }}{{ n + 1 }}{{ messages | length }}", kHi, JsonObject{{"n", 7}}), "[78]1");
}

TEST(ChatTemplate, Documents) {
  const auto t = ChatTemplate::FromSource("{% for d in documents %}{{ d.text }};{% endfor %}", JsonObject{});
  ASSERT_TRUE(t.ok());
  EXPECT_TRUE(t->names_documents());
  EXPECT_FALSE(ChatTemplate::FromSource("{{ messages }}", JsonObject{})->names_documents());
  const auto pieces =
      t->Render(*ParseJson(kHi), nullptr, {}, true, *ParseJson(R"([{"text": "<s>"}, {"text": "b"}])"));
  ASSERT_TRUE(pieces.ok()) << pieces.status().message();
  ASSERT_EQ(pieces->size(), 4u);
  EXPECT_EQ((*pieces)[0].text, "<s>");
  EXPECT_TRUE((*pieces)[0].from_user);
  EXPECT_FALSE((*pieces)[1].from_user);
}

TEST(ChatTemplate, KwargsMayNotShadow) {
  for (const char* name :
       {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "tokenize",
        "chat_template", "conversation", "return_dict", "continue_final_message"}) {
    EXPECT_TRUE(Marked("x", kHi, JsonObject{{name, "y"}}).starts_with("chat_template_kwargs: ")) << name;
  }
  EXPECT_TRUE(Marked("{{ raise_exception('no') }}", kHi).starts_with("messages: no"));
  EXPECT_TRUE(
      Marked("x", R"([{"role": "user", "content": 5}])").starts_with("messages: messages[0].content"));
}

TEST(ChatTemplate, BundledModelPlacesMedia) {
  StatusOr<ChatTemplate> t = ChatTemplate::Load("models/ernie-4.5-vl-tiny");
  ASSERT_TRUE(t.ok()) << t.status().message();
  Json messages = *ParseJson(
      R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "<think>?"}]}])");
  auto pieces = t->Render(messages, nullptr, JsonObject{{"enable_thinking", true}}, true);
  ASSERT_TRUE(pieces.ok()) << pieces.status().message();
  ASSERT_EQ(pieces->size(), 3u);
  EXPECT_EQ((*pieces)[0].text,
            "<|begin_of_sentence|>User: Picture 1:<|IMAGE_START|><|image@placeholder|><|IMAGE_END|>");
  EXPECT_EQ((*pieces)[1].text, "<think>?");
  EXPECT_TRUE((*pieces)[1].from_user);
  EXPECT_EQ((*pieces)[2].text, "\nAssistant: <think>");
}

}  // namespace
}  // namespace fd
