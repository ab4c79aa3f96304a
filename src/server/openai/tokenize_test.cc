#include "server/openai/tokenize.h"

#include <gtest/gtest.h>

#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

class TokenizeTest : public ::testing::Test {
 protected:
  ScriptedEngine engine_{"x"};
  std::shared_ptr<Service> service_ = TestService(engine_);
};

TEST_F(TokenizeTest, TextAndBack) {
  const auto work = Tokenize(*service_, R"({"prompt":"ab","return_token_strs":true,"other":1})");
  ASSERT_TRUE(work.ok()) << work.status().message();
  EXPECT_EQ(work->reply, R"({"count":2,"max_model_len":512,"tokens":[97,98],"token_strs":["a","b"]})");
  EXPECT_EQ(work->ignored_fields, std::vector<std::string>{"other"});
  const auto reply = Detokenize(*service_, R"({"tokens":[97,98]})");
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->json, R"({"prompt":"ab"})");
}

TEST_F(TokenizeTest, ConversationsAreHandedOn) {
  const auto work =
      Tokenize(*service_, R"({"messages":[{"role":"user","content":"a"}],"add_special_tokens":true})");
  ASSERT_TRUE(work.ok());
  ASSERT_TRUE(work->chat);
  EXPECT_EQ(work->chat->Find("add_special_tokens"), nullptr);
  EXPECT_NE(work->chat->Find("messages"), nullptr);
}

TEST_F(TokenizeTest, Errors) {
  for (const char* body : {"", "[]", "{}", R"({"prompt":5})", R"({"prompt":null})",
                           R"({"prompt":"a","model":7})", R"({"prompt":"a","add_special_tokens":"yes"})",
                           R"({"prompt":5,"messages":[{"role":"user","content":"a"}]})",
                           R"({"prompt":"a","tools":[{"type":"function","function":"f"}]})",
                           R"({"prompt":"a","enable_thinking":"yes"})"}) {
    EXPECT_EQ(Tokenize(*service_, body).status().code(), StatusCode::kInvalidArgument) << body;
  }
  for (const char* body : {"{}", R"({"tokens":"a"})", R"({"tokens":[-1]})", R"({"tokens":[259]})",
                           R"({"tokens":[2147483648]})", R"({"tokens":[1.5]})"}) {
    EXPECT_EQ(Detokenize(*service_, body).status().code(), StatusCode::kInvalidArgument) << body;
  }
  for (const char* body : {"{}", R"({"req_ids":[]})", R"({"req_ids":[1]})", R"({"req_ids":"a"})",
                           R"({"abort_all":false})", R"({"abort_al":true})"}) {
    EXPECT_EQ(ReadAbort(body).status().code(), StatusCode::kInvalidArgument) << body;
  }
  service_->strict_requests = true;
  EXPECT_FALSE(Tokenize(*service_, R"({"prompt":"a","promt":"b"})").ok());
  service_->check_model_name = true;
  EXPECT_EQ(Tokenize(*service_, R"({"prompt":"a","model":"b"})").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace fd
