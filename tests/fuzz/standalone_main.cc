// Replays seed files and a fixed number of mutations of each through LLVMFuzzerTestOneInput: no clang, no
// clock, the same every time. With --seconds it goes on with other mutations until the time is over; what it
// tries is written to --last first, so that a crash leaves its input there.
// Usage: fuzz_x [--mutations N] [--seconds N] [--last FILE] FILE_OR_DIRECTORY...
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

Bytes Mutate(const Bytes& seed, std::mt19937& random) {
  Bytes bytes = seed;
  auto below = [&](size_t n) { return static_cast<size_t>(random() % (n > 0 ? n : 1)); };
  for (size_t edits = 1 + below(4); edits > 0 && !bytes.empty(); --edits) {
    size_t at = below(bytes.size());
    switch (below(6)) {
      case 0:
        bytes[at] ^= static_cast<uint8_t>(1u << below(8));
        break;
      case 1:
        bytes[at] = static_cast<uint8_t>(random());
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(8),
                     static_cast<uint8_t>(random()));
        break;
      case 4:
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    bytes.begin() + static_cast<std::ptrdiff_t>(at + below(bytes.size() - at)));
        break;
      default:  // a length or a count that says far too much
        for (size_t i = at; i < bytes.size() && i < at + 4; ++i) bytes[i] = 0xff;
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  int mutations = 300;
  int seconds = 0;
  std::string last_path;
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--mutations" && i + 1 < argc) {
      mutations = std::stoi(argv[++i]);
    } else if (argument == "--seconds" && i + 1 < argc) {
      seconds = std::stoi(argv[++i]);
    } else if (argument == "--last" && i + 1 < argc) {
      last_path = argv[++i];
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) {
        if (entry.is_regular_file()) files.push_back(entry.path());
      }
    } else {
      files.emplace_back(argument);
    }
  }
  const auto run = [&last_path](const Bytes& bytes) {
    if (!last_path.empty()) {
      std::ofstream last(last_path, std::ios::binary);
      last.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  };
  LLVMFuzzerTestOneInput(nullptr, 0);
  std::mt19937 random(1);
  std::vector<Bytes> seeds;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    if (!in) {
      std::fprintf(stderr, "cannot read %s\n", file.c_str());
      return 1;
    }
    seeds.emplace_back((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    run(seeds.back());
    for (int m = 0; m < mutations; ++m) run(Mutate(seeds.back(), random));
  }
  std::printf("%zu seeds, %d mutations of each\n", files.size(), mutations);
  if (seconds == 0 || seeds.empty()) return 0;

  // The beginning of one seed and the end of another, then mutated.
  random.seed(std::random_device()());
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  int64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    Bytes bytes = seeds[random() % seeds.size()];
    if (random() % 2 == 0) {
      const Bytes& other = seeds[random() % seeds.size()];
      bytes.resize(random() % (bytes.size() + 1));
      bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(random() % (other.size() + 1)),
                   other.end());
    }
    run(Mutate(bytes, random));
  }
  std::printf("%lld more in %d s\n", static_cast<long long>(runs), seconds);
  return 0;
}
