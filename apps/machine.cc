#include "machine.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

struct Feature {
  std::string_view flag;  // in /proc/cpuinfo
  std::string_view name;
};
constexpr Feature kFeatures[] = {
    {"avx2", "AVX2"},
    {"fma", "FMA"},
    {"f16c", "F16C"},
    {"avx512f", "AVX-512"},
    {"avx512_bf16", "AVX-512 BF16"},
    {"avx_vnni", "AVX VNNI"},
    {"avx512_vnni", "AVX-512 VNNI"},
    {"amx_tile", "AMX"},
    {"amx_bf16", "AMX BF16"},
    {"amx_int8", "AMX INT8"},
};

// "name<blanks>: value" -> value.
std::string_view ValueOf(std::string_view line) {
  const size_t colon = line.find(':');
  return colon == std::string_view::npos ? std::string_view() : Trim(line.substr(colon + 1));
}

void ReadCpu(const std::string& root, MachineFacts* facts) {
  std::ifstream file(root + "/proc/cpuinfo");
  bool flags_read = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("processor")) ++facts->processors;
    if (line.starts_with("model name") && facts->cpu_model.empty()) facts->cpu_model = ValueOf(line);
    if (!line.starts_with("flags") || flags_read) continue;
    flags_read = true;
    const std::vector<std::string> flags = Split(ValueOf(line), ' ');
    for (const Feature& feature : kFeatures) {
      if (std::find(flags.begin(), flags.end(), feature.flag) != flags.end())
        facts->cpu_features.emplace_back(feature.name);
    }
  }
}

void ReadMemory(const std::string& root, MachineFacts* facts) {
  std::ifstream file(root + "/proc/meminfo");  // "MemTotal:   24586112 kB"
  for (std::string line; std::getline(file, line);) {
    const auto bytes = [&] { return std::atoll(std::string(ValueOf(line)).c_str()) * 1024; };
    if (line.starts_with("MemTotal:")) facts->memory_total_bytes = bytes();
    if (line.starts_with("MemAvailable:")) facts->memory_free_bytes = bytes();
  }
  std::ifstream pages(root + "/sys/kernel/mm/transparent_hugepage/enabled");  // "always [madvise] never"
  std::string text;
  std::getline(pages, text);
  const size_t open = text.find('['), close = text.find(']');
  if (open != std::string::npos && close != std::string::npos && open < close)
    facts->transparent_huge_pages = text.substr(open + 1, close - open - 1);
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul ...": the first word that is a version.
void ReadNvidia(const std::string& root, MachineFacts* facts) {
  std::ifstream file(root + "/proc/driver/nvidia/version");
  std::string line;
  std::getline(file, line);
  for (const std::string& word : Split(ValueOf(line), ' ')) {
    const bool is_version = word.find('.') != std::string::npos &&
                            std::all_of(word.begin(), word.end(),
                                        [](unsigned char c) { return std::isdigit(c) != 0 || c == '.'; });
    if (!is_version) continue;
    facts->nvidia_kernel_driver = word;
    break;
  }
  facts->nvidia_device_files = FileExists(root + "/dev/nvidiactl");
}

}  // namespace

bool MachineFacts::HasFeature(const std::string& name) const {
  return std::find(cpu_features.begin(), cpu_features.end(), name) != cpu_features.end();
}

MachineFacts ReadMachine(const std::string& root) {
  MachineFacts facts;
  ReadCpu(root, &facts);
  ReadMemory(root, &facts);
  ReadNvidia(root, &facts);
  return facts;
}

std::vector<std::string> KnownCpuFeatures() {
  std::vector<std::string> names;
  for (const Feature& feature : kFeatures) names.emplace_back(feature.name);
  return names;
}

}  // namespace fd
