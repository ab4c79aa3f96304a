// Parameters of sampling tests and the golden distributions of tests/golden/sampling.
#pragma once

#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "compute/ops/sample.h"
#include "tests/parity/parity.h"

namespace fd::parity {

struct Params {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
};

// The device tensors of `rows` rows with the same parameters; seed 17, positions 0, 1, ...
struct ParamTensors {
  ParamTensors(int64_t rows, const Params& p)
      : temperature(DType::kFloat32, Device{}, {rows}),
        top_k(DType::kInt32, Device{}, {rows}),
        top_p(DType::kFloat32, Device{}, {rows}),
        min_p(DType::kFloat32, Device{}, {rows}),
        seed(DType::kInt64, Device{}, {rows}),
        position(DType::kInt64, Device{}, {rows}) {
    for (int64_t r = 0; r < rows; ++r) {
      temperature.view().As<float>()[r] = p.temperature;
      top_k.view().As<int32_t>()[r] = p.top_k;
      top_p.view().As<float>()[r] = p.top_p;
      min_p.view().As<float>()[r] = p.min_p;
      seed.view().As<int64_t>()[r] = 17;
      position.view().As<int64_t>()[r] = r;
    }
  }
  operator ops::SampleParams() const { return {temperature, top_k, top_p, min_p, seed, position}; }
  Tensor temperature, top_k, top_p, min_p, seed, position;
};

// Raw bytes of the tensors of tests/golden/sampling/vectors.safetensors.
struct Golden {
  Golden() {
    std::ifstream file("tests/golden/sampling/vectors.safetensors", std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    bytes = all.str();
    uint64_t length = 0;
    FD_CHECK(bytes.size() > 8, "run from the source root");
    std::memcpy(&length, bytes.data(), 8);
    header = ParseJson(std::string_view(bytes).substr(8, length)).value();
    base = 8 + length;
    cases = ReadJsonFile("tests/golden/sampling/vectors.json").value();
  }
  template <typename T>
  std::vector<T> Read(const std::string& name) const {
    const Json* entry = header.Find(name);
    FD_CHECK(entry != nullptr, name);
    const JsonArray& span = entry->Find("data_offsets")->as_array();
    const size_t begin = static_cast<size_t>(span[0].as_int()), end = static_cast<size_t>(span[1].as_int());
    std::vector<T> out((end - begin) / sizeof(T));
    std::memcpy(out.data(), bytes.data() + base + begin, end - begin);
    return out;
  }
  std::string bytes;
  size_t base = 0;
  Json header, cases;
};

// False when the case has what changes the logits before they come here: penalties and bans.
inline bool ParamsOf(const Json& c, Params* p) {
  bool ours = true;
  for (const auto& [key, value] : c.Find("params")->as_object()) {
    if (key == "temperature") {
      p->temperature = static_cast<float>(value.as_double());
    } else if (key == "top_k") {
      p->top_k = static_cast<int32_t>(value.as_int());
    } else if (key == "top_p") {
      p->top_p = static_cast<float>(value.as_double());
    } else if (key == "min_p") {
      p->min_p = static_cast<float>(value.as_double());
    } else {
      ours = false;
    }
  }
  return ours;
}

}  // namespace fd::parity
