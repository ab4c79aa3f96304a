// The golden prompts as requests to an engine, with what transformers answered.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "engine/plan/request.h"
#include "model/weights/safetensors.h"

namespace fd::golden {

inline const std::string kModels = "tests/golden/models/";
inline const std::string kCases = "tests/golden/cases/";

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

inline void ReadExpected(const SafetensorsFile& file, GoldenCase& c) {
  c.request.token_ids = Read<int32_t>(file, c.name + ".input_ids");
  c.greedy_ids = Read<int32_t>(file, c.name + ".greedy_ids");
  c.greedy_logprobs = Read<float>(file, c.name + ".greedy_logprobs");
  c.request.sampling.temperature = 0;
  c.request.sampling.ignore_eos = true;
  c.request.sampling.max_tokens = static_cast<int64_t>(c.greedy_ids.size());
}

inline std::vector<GoldenCase> TextCases(const std::string& family) {
  auto file = SafetensorsFile::Open(StrCat(kCases, family, ".safetensors"));
  FD_CHECK(file.ok(), file.status().message());
  std::vector<GoldenCase> cases;
  for (const char* name : {"p1", "p7", "p64", "p65", "p200"}) {
    cases.push_back({name});
    ReadExpected(**file, cases.back());
  }
  return cases;
}

inline std::vector<GoldenCase> VlCases() {
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

}  // namespace fd::golden
