#include "model/weights/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/json.h"
#include "model/weights/checkpoint.h"
#include "model/weights/inspect.h"
#include "model/weights/write_for_test.h"

namespace fd {
namespace {

StatusOr<SafetensorsHeader> Parse(const std::string& bytes) {
  return ParseSafetensorsHeader(bytes, static_cast<int64_t>(bytes.size()));
}
StatusOr<SafetensorsHeader> ParseHeader(std::string_view header, size_t data_bytes) {
  return Parse(SafetensorsWithHeader(header, std::string(data_bytes, 'x')));
}
std::string ErrorOf(std::string_view header, size_t data_bytes) {
  StatusOr<SafetensorsHeader> h = ParseHeader(header, data_bytes);
  return h.ok() ? "no error" : h.status().message();
}
bool Contains(const std::string& text, std::string_view piece) {
  return text.find(piece) != std::string::npos;
}

TEST(Safetensors, ReadsGoldenCases) {
  auto file = SafetensorsFile::Open("tests/golden/cases/ernie4_5.safetensors");
  ASSERT_TRUE(file.ok()) << file.status().message();
  const TensorInfo* ids = (*file)->Find("p7.input_ids");
  ASSERT_NE(ids, nullptr);
  EXPECT_EQ(ids->dtype, "I32");
  EXPECT_EQ(ids->shape, std::vector<int64_t>{7});
  // The JSON beside it repeats the ids.
  auto json = ReadJsonFile("tests/golden/cases/ernie4_5.json");
  ASSERT_TRUE(json.ok());
  for (const Json& p : json->Find("prompts")->as_array()) {
    if (p.Find("name")->as_string() != "p7") continue;
    for (size_t i = 0; i < 7; ++i) {
      int32_t id;
      std::memcpy(&id, (*file)->Data(*ids) + 4 * i, 4);
      EXPECT_EQ(id, p.Find("input_ids")->as_array()[i].as_int());
    }
  }
  EXPECT_EQ((*file)->Find("p7.input_id"), nullptr);
}

TEST(Safetensors, AcceptsScalarsEmptyTensorsAndMetadata) {
  auto h =
      ParseHeader(R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                  R"("e":{"dtype":"BF16","shape":[0,3],"data_offsets":[4,4]},)"
                  R"("b":{"dtype":"U8","shape":[2,3],"data_offsets":[4,10]}}   )",
                  10);
  ASSERT_TRUE(h.ok()) << h.status().message();
  ASSERT_EQ(h->tensors.size(), 3u);
  EXPECT_EQ(h->metadata[0].second, "pt");
  EXPECT_EQ(h->tensors[1].name, "e");
  EXPECT_EQ(h->tensors[2].NumElements(), 6);
}

TEST(Safetensors, RefusesHostileHeaders) {
  EXPECT_FALSE(Parse("").ok());
  EXPECT_FALSE(Parse("1234567").ok());
  EXPECT_TRUE(Contains(Parse(std::string(8, '\xff')).status().message(), "18446744073709551615"));
  EXPECT_TRUE(Contains(Parse(std::string("\x00\x10\x00\x00\x00\x00\x00\x00{}", 10)).status().message(),
                       "truncated: 10 bytes"));
  EXPECT_TRUE(Contains(ErrorOf("[]", 0), "no '{'"));
  EXPECT_FALSE(ParseHeader("", 0).ok());
  EXPECT_FALSE(ParseHeader("{\"a\":", 0).ok());
  EXPECT_FALSE(ParseHeader("{} x", 0).ok());
  EXPECT_TRUE(Contains(ErrorOf(R"({"a":1})", 0), "expected an object"));
  auto one = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return StrCat(R"({"t":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
  };
  EXPECT_EQ(ErrorOf(one("\"F32\"", "[2]", "[0,8]"), 8), "no error");
  EXPECT_TRUE(Contains(ErrorOf(one("\"F99\"", "[2]", "[0,8]"), 8), "unknown dtype \"F99\""));
  EXPECT_TRUE(Contains(ErrorOf(one("7", "[2]", "[0,8]"), 8), "dtype"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[-2]", "[0,8]"), 8), "no size"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2.0]", "[0,8]"), 8), "no size"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "2", "[0,8]"), 8), "shape"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[4294967296,4294967296,4]", "[0,8]"), 8), "overflows"));
  EXPECT_TRUE(
      Contains(ErrorOf(one("\"F32\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "[0,8]"), 8), "dimensions"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[0,9]"), 9), "span 9 bytes, but F32 [2] needs 8"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[8,0]"), 8), "end before they begin"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[-8,0]"), 8), "no offset"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[0]"), 8), "no pair"));
  EXPECT_TRUE(
      Contains(ErrorOf(one("\"F32\"", "[0]", "[9223372036854775807,9223372036854775807]"), 8), "overflow"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F4\"", "[3]", "[0,1]"), 1), "needs 2"));
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[4,12]"), 12), "leaves a gap"));
  EXPECT_TRUE(Contains(ErrorOf(R"({"__metadata__":{"a":1}})", 0), "__metadata__"));
  // Both numbers of a truncated and of an overlong file.
  std::string cut = ErrorOf(one("\"F32\"", "[2]", "[0,8]"), 5);
  EXPECT_TRUE(Contains(cut, "truncated: the file has 67 bytes, its header describes 70")) << cut;
  EXPECT_TRUE(Contains(ErrorOf(one("\"F32\"", "[2]", "[0,8]"), 9), "describes only"));
  // Names twice, overlap.
  std::string twice =
      R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})";
  EXPECT_FALSE(ParseHeader(twice, 2).ok());
  std::string overlap =
      R"({"t":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"u":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})";
  EXPECT_TRUE(Contains(ErrorOf(overlap, 6), "tensor \"u\" overlaps \"t\""));
}

TEST(Checkpoint, ShardsAndIndexMustAgree) {
  FolderForTest folder;
  std::string bytes(4, '\0');
  WriteFileForTest(folder.File("a.safetensors"), SafetensorsForTest({{"x", "F32", {1}, bytes}}));
  WriteFileForTest(folder.File("b.safetensors"), SafetensorsForTest({{"y", "F32", {1}, bytes}}));
  auto error = [&](std::string_view index) {
    WriteFileForTest(folder.File("model.safetensors.index.json"), index);
    auto c = Checkpoint::Open(folder.path());
    return c.ok() ? std::string("no error") : c.status().message();
  };
  EXPECT_EQ(error(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})"), "no error");
  EXPECT_TRUE(Contains(error(R"({"weight_map":{"x":"a.safetensors","y":"c.safetensors"}})"),
                       "shard c.safetensors is missing"));
  EXPECT_TRUE(Contains(error(R"({"weight_map":{"x":"b.safetensors","y":"b.safetensors"}})"),
                       "tensor x is not in b.safetensors"));
  EXPECT_TRUE(
      Contains(error(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors","z":"b.safetensors"}})"),
               "tensor z is not in b.safetensors"));
  EXPECT_TRUE(Contains(error(R"({"weight_map":{"x":"../a.safetensors"}})"), "a plain name"));
  EXPECT_TRUE(Contains(error(R"({"weight_map":{"x":"a.safetensors","y":"a.safetensors"}})"),
                       "tensor y is not in a.safetensors"));
  EXPECT_TRUE(
      Contains(error(R"({"weight_map":{"y":"b.safetensors","q":"a.safetensors"}})"), "does not list it"));
  EXPECT_TRUE(Contains(error(R"({"weight_map":{}})"), "empty"));
  EXPECT_TRUE(Contains(error(R"([])"), "weight_map"));
  // Without an index every file counts, and a name may stand in one of them only.
  std::filesystem::remove(folder.File("model.safetensors.index.json"));
  EXPECT_TRUE(Checkpoint::Open(folder.path()).ok());
  WriteFileForTest(folder.File("c.safetensors"), SafetensorsForTest({{"x", "F32", {1}, bytes}}));
  EXPECT_TRUE(Contains(Checkpoint::Open(folder.path()).status().message(), "stands in two files"));
  EXPECT_TRUE(Contains(Checkpoint::Open(folder.path() + "/none").status().message(), "holds no weights"));
}

TEST(Inspect, ListsAnyCheckpoint) {
  auto demo = ListTensors("models/ernie-4.5-vl-tiny");
  ASSERT_TRUE(demo.ok()) << demo.status().message();
  EXPECT_EQ(demo->num_files, 3);
  auto index = ReadJsonFile("models/ernie-4.5-vl-tiny/model.safetensors.index.json");
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(demo->size_bytes, index->Find("metadata")->Find("total_size")->as_int());
  EXPECT_EQ(demo->tensors.size(), index->Find("weight_map")->as_object().size());
  EXPECT_EQ(demo->dtypes[0].dtype, "BF16");
  int64_t sum = 0;
  for (const DTypeTotal& t : demo->dtypes) sum += t.parameters;
  EXPECT_EQ(sum, demo->parameters);
  // Natural order.
  size_t two = 0, ten = 0;
  for (size_t i = 0; i < demo->tensors.size(); ++i) {
    if (demo->tensors[i].name == "model.layers.1.mlp.experts.2.down_proj.weight") two = i;
    if (demo->tensors[i].name == "model.layers.1.mlp.experts.10.down_proj.weight") ten = i;
  }
  EXPECT_LT(two, ten);
  // A family that the program cannot run.
  auto qwen = ListTensors("tests/golden/models/qwen3_moe");
  ASSERT_TRUE(qwen.ok());
  EXPECT_GT(qwen->parameters, 0);
  EXPECT_FALSE(ListTensors("tests/golden/models/none").ok());
}

}  // namespace
}  // namespace fd
