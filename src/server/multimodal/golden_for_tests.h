// Readers for the golden files, for tests only.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/json.h"

namespace fd::golden {

inline std::string MustRead(const std::string& path) {
  StatusOr<std::string> bytes = ReadFile(path);
  FD_CHECK(bytes.ok(), bytes.status().message());
  return *std::move(bytes);
}

inline Json MustReadJson(const std::string& path) {
  StatusOr<Json> json = ReadJsonFile(path);
  FD_CHECK(json.ok(), json.status().message());
  return *std::move(json);
}

// FIPS 180-4, as hexadecimal text.
inline std::string Sha256(std::string_view data) {
  std::array<uint32_t, 64> k{};
  std::array<uint32_t, 8> state{};
  // The constants are the fractional bits of cube and square roots of the first primes.
  int found = 0;
  for (int candidate = 2; found < 64; ++candidate) {
    bool prime = true;
    for (int d = 2; d * d <= candidate; ++d) prime = prime && candidate % d != 0;
    if (!prime) continue;
    auto root_bits = [&](int power) {  // floor of candidate^(1/power) * 2^32, in integers
      unsigned __int128 low = 0, high = static_cast<unsigned __int128>(32) << 32;
      while (high - low > 1) {
        unsigned __int128 mid = (low + high) / 2;
        // mid^power <= candidate * 2^(32 * power), kept below 2^128
        bool fits = power == 2 ? mid * mid <= static_cast<unsigned __int128>(candidate) << 64
                               : mid * mid * mid <= static_cast<unsigned __int128>(candidate) << 96;
        (fits ? low : high) = mid;
      }
      return static_cast<uint32_t>(low);
    };
    k[static_cast<size_t>(found)] = root_bits(3);
    if (found < 8) state[static_cast<size_t>(found)] = root_bits(2);
    ++found;
  }
  std::string padded(data);
  padded.push_back(static_cast<char>(0x80));
  while (padded.size() % 64 != 56) padded.push_back('\0');
  for (int shift = 56; shift >= 0; shift -= 8) padded.push_back(static_cast<char>(data.size() * 8 >> shift));
  auto rotate = [](uint32_t x, int n) { return x >> n | x << (32 - n); };
  for (size_t at = 0; at < padded.size(); at += 64) {
    uint32_t w[64];
    for (size_t i = 0; i < 16; ++i) {
      w[i] = 0;
      for (size_t b = 0; b < 4; ++b) w[i] = w[i] << 8 | static_cast<uint8_t>(padded[at + 4 * i + b]);
    }
    for (size_t i = 16; i < 64; ++i) {
      uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
      uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    std::array<uint32_t, 8> v = state;
    for (size_t i = 0; i < 64; ++i) {
      uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
      uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
      uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
      uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
      v = {t1 + t2, v[0], v[1], v[2], v[3] + t1, v[4], v[5], v[6]};
    }
    for (size_t i = 0; i < 8; ++i) state[i] += v[i];
  }
  std::string hex;
  for (uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) hex.push_back("0123456789abcdef"[word >> shift & 15]);
  }
  return hex;
}

inline std::string Sha256(const std::vector<uint8_t>& bytes) {
  return Sha256(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

// A .safetensors file read whole; a tensor's bytes as values of T.
class Tensors {
 public:
  explicit Tensors(const std::string& path) : file_(MustRead(path)) {
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file_.data(), 8);
    StatusOr<Json> header = ParseJson(std::string_view(file_).substr(8, header_bytes));
    FD_CHECK(header.ok(), header.status().message());
    header_ = *std::move(header);
    data_at_ = 8 + header_bytes;
  }
  template <typename T>
  std::vector<T> Get(const std::string& name) const {
    const Json* tensor = header_.Find(name);
    FD_CHECK(tensor != nullptr, name);
    const JsonArray& range = tensor->Find("data_offsets")->as_array();
    size_t begin = static_cast<size_t>(range[0].as_int()), end = static_cast<size_t>(range[1].as_int());
    std::vector<T> values((end - begin) / sizeof(T));
    std::memcpy(values.data(), file_.data() + data_at_ + begin, end - begin);
    return values;
  }

 private:
  std::string file_;
  Json header_;
  size_t data_at_ = 0;
};

}  // namespace fd::golden
