#include "server/http/gate.h"

#include <gtest/gtest.h>

namespace fd {
namespace {

HttpRequest From(const std::string& authorization, const std::string& x_api_key = "") {
  HttpRequest request;
  request.host = "localhost";
  request.authorization = authorization;
  request.x_api_key = x_api_key;
  return request;
}

int StatusOf(const Gate& gate, const HttpRequest& request, Access access) {
  const auto refusal = gate.Refuse(request, access);
  return refusal ? refusal->status : 200;
}

TEST(Gate, Keys) {
  HttpOptions options;
  options.api_keys = {"one", "two"};
  options.admin_keys = {"boss"};
  const Gate gate(options);
  EXPECT_EQ(StatusOf(gate, From(""), Access::kPublic), 200);
  EXPECT_EQ(StatusOf(gate, From(""), Access::kKey), 401);
  EXPECT_EQ(StatusOf(gate, From("Bearer one"), Access::kKey), 200);
  EXPECT_EQ(StatusOf(gate, From("bearer two"), Access::kKey), 200);
  EXPECT_EQ(StatusOf(gate, From("", "two"), Access::kKey), 200);
  EXPECT_EQ(StatusOf(gate, From("Bearer boss"), Access::kKey), 200);
  EXPECT_EQ(StatusOf(gate, From("Bearer one"), Access::kAdmin), 401);
  EXPECT_EQ(StatusOf(gate, From("Bearer boss"), Access::kAdmin), 200);
  EXPECT_EQ(StatusOf(gate, From("", "boss"), Access::kAdmin), 200);
  // Authorization counts where it is there: a second key does not mend a wrong one.
  EXPECT_EQ(StatusOf(gate, From("Bearer wrong", "one"), Access::kKey), 401);
  EXPECT_EQ(StatusOf(gate, From("Basic one"), Access::kKey), 401);
  EXPECT_EQ(StatusOf(gate, From("Bearer "), Access::kKey), 401);
  EXPECT_EQ(StatusOf(gate, From(std::string("Bearer one\0", 11)), Access::kKey), 401);
  EXPECT_EQ(gate.KeyIndex(From("Bearer two")), 1);
  EXPECT_EQ(gate.KeyIndex(From("Bearer boss")), -1);
}

TEST(Gate, AdminEndpointsAreClosedWithoutAnAdminKey) {
  const Gate open{HttpOptions{}};
  EXPECT_EQ(StatusOf(open, From(""), Access::kKey), 200);
  EXPECT_EQ(StatusOf(open, From("Bearer "), Access::kAdmin), 403);
  EXPECT_EQ(StatusOf(open, From("Bearer x"), Access::kAdmin), 403);
}

TEST(Gate, Origins) {
  HttpOptions options;
  options.allowed_origins = {"https://chat.example.org/"};
  options.allow_credentials = true;
  const Gate gate(options);
  HttpRequest page = From("");
  page.origin = "https://chat.example.org";
  EXPECT_EQ(StatusOf(gate, page, Access::kKey), 200);
  bool names_origin = false;
  for (const auto& [name, value] : gate.OriginHeaders(page)) {
    if (name == "Access-Control-Allow-Origin") names_origin = value == page.origin;
  }
  EXPECT_TRUE(names_origin);
  page.method = "OPTIONS";
  EXPECT_FALSE(gate.Preflight(page, "POST"));
  page.asked_method = "POST";
  page.asked_headers = "x-stainless-os,\r\nEvil: 1";
  const auto answer = gate.Preflight(page, "POST, OPTIONS");
  ASSERT_TRUE(answer);
  for (const auto& [name, value] : answer->headers) EXPECT_EQ(value.find('\n'), std::string::npos) << name;

  page.origin = "https://evil.example";
  EXPECT_EQ(StatusOf(gate, page, Access::kKey), 403);
  EXPECT_FALSE(gate.Preflight(page, "POST"));
  for (const auto& [name, value] : gate.OriginHeaders(page)) EXPECT_EQ(name, "Vary");
  EXPECT_TRUE(Gate{HttpOptions{}}.OriginHeaders(page).empty());
}

}  // namespace
}  // namespace fd
