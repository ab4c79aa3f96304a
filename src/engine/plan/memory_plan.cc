#include "engine/plan/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/strings.h"

namespace fd {
namespace {

// "name 123" or "name: 123 kB" in a file of such lines.
std::optional<int64_t> ReadField(const std::string& path, const std::string& name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.compare(0, space, name) != 0) continue;
    return std::atoll(line.c_str() + space);
  }
  return std::nullopt;
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

// What one group's limit leaves; nullopt without a limit.
std::optional<int64_t> GroupRoom(const std::string& dir, const char* limit_name, const char* usage_name,
                                 const char* cache_name) {
  const std::optional<int64_t> limit = ReadNumber(dir + "/" + limit_name);
  const std::optional<int64_t> usage = ReadNumber(dir + "/" + usage_name);
  if (!limit || !usage) return std::nullopt;
  const int64_t cache = ReadField(dir + "/memory.stat", cache_name).value_or(0);
  return std::max<int64_t>(*limit - std::max<int64_t>(*usage - cache, 0), 0);
}

// The group at `path` below `mount` and all its parents; inside a container only the mount itself may be
// there.
std::optional<int64_t> HierarchyRoom(const std::string& mount, std::string path, const char* limit_name,
                                     const char* usage_name, const char* cache_name) {
  std::optional<int64_t> least;
  while (true) {
    if (auto room = GroupRoom(mount + path, limit_name, usage_name, cache_name)) {
      least = std::min(least.value_or(*room), *room);
    }
    if (path.empty()) return least;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

// Pages that must be there: those asked for, or one sequence's.
int64_t RequiredPages(const EngineOptions& options) {
  return options.num_kv_pages > 0 ? options.num_kv_pages : PagesForTokens(options.max_model_len);
}

int64_t FixedBytes(const MemoryNeeds& needs) {
  return needs.weight_bytes + needs.executor_bytes + needs.encoder_bytes + needs.workspace_bytes +
         (needs.device_is_host ? needs.swap_bytes : 0);
}

// Of the available memory, what may be used: all of it where the number of pages was asked for.
int64_t UsableBytes(const MemoryNeeds& needs, const EngineOptions& options) {
  if (options.num_kv_pages > 0) return needs.available_bytes;
  return static_cast<int64_t>(static_cast<double>(needs.available_bytes) * needs.utilization);
}

// Compared by division: the product may overflow.
bool Fits(const MemoryNeeds& needs, const EngineOptions& options) {
  if (needs.available_bytes <= 0) return true;  // unknown
  const int64_t left = UsableBytes(needs, options) - FixedBytes(needs);
  return left >= 0 && RequiredPages(options) <= left / needs.page_bytes;
}

// The largest N = unit * k below options.*value that fits; 0 when none does.
int64_t LargestThatFits(const NeedsOf& needs_of, EngineOptions options, int64_t EngineOptions::* value,
                        int64_t unit) {
  int64_t low = 0, high = (options.*value - 1) / unit;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    options.*value = middle * unit;
    if (Fits(needs_of(options), options)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low * unit;
}

std::string EncoderPart(const MemoryNeeds& needs) {
  return needs.encoder_bytes == 0 ? "" : StrCat(" + encoder cache ", HumanBytes(needs.encoder_bytes));
}

// Where the host's pages lie in the same memory.
std::string SwapPart(const MemoryNeeds& needs) {
  return needs.swap_bytes == 0 || !needs.device_is_host
             ? ""
             : StrCat(" + swap space ", HumanBytes(needs.swap_bytes));
}

// --swap-space for so many pages, rounded down.
std::string SwapSpace(int64_t pages, int64_t page_bytes) {
  const double gib = static_cast<double>(pages) * static_cast<double>(page_bytes) / (int64_t{1} << 30);
  return pages == 0 ? "0" : Fixed(std::floor(gib * 1000) / 1000, 3);
}

Status CheckHostPages(const MemoryNeeds& needs, const EngineOptions& options) {
  const int64_t room = needs.host_available_bytes;
  if (needs.device_is_host || room <= 0 || needs.swap_bytes <= room) return OkStatus();
  return InvalidArgument(
      StrCat("--swap-space: ", options.num_host_pages, " pages of ", HumanBytes(needs.page_bytes), " are ",
             HumanBytes(needs.swap_bytes), " of host memory, but ", HumanBytes(room),
             " are available: lower --swap-space to at most ",
             SwapSpace(room / needs.page_bytes, needs.page_bytes)),
      "--swap-space");
}

Status DoesNotFit(const NeedsOf& needs_of, const EngineOptions& options) {
  const MemoryNeeds needs = needs_of(options);
  const bool asked = options.num_kv_pages > 0;
  const double usable = static_cast<double>(UsableBytes(needs, options));
  const double pages = static_cast<double>(RequiredPages(options)) * static_cast<double>(needs.page_bytes);
  const double sum = static_cast<double>(FixedBytes(needs)) + pages;
  std::string text =
      StrCat("not enough memory: weights ", HumanBytes(needs.weight_bytes), " + step buffers ",
             HumanBytes(needs.executor_bytes), EncoderPart(needs), SwapPart(needs), " + workspace ",
             HumanBytes(needs.workspace_bytes), " + key/value pages ", HumanBytes(pages));
  text += asked ? StrCat(" (--num-kv-pages ", options.num_kv_pages, " of ", HumanBytes(needs.page_bytes), ")")
                : StrCat(" (one sequence of --max-model-len ", options.max_model_len, ")");
  text += StrCat(" = ", HumanBytes(sum), ", but ", HumanBytes(usable), " can be used (");
  if (!asked) text += StrCat("--gpu-memory-utilization ", needs.utilization, " of ");
  text +=
      StrCat(HumanBytes(needs.available_bytes), " available): ", HumanBytes(sum - usable), " are missing");

  std::vector<std::string> help;
  auto lower = [&](const char* flag, int64_t EngineOptions::* value, int64_t unit) {
    if (const int64_t most = LargestThatFits(needs_of, options, value, unit); most > 0)
      help.push_back(StrCat("lower ", flag, " to at most ", most));
  };
  if (asked) lower("--num-kv-pages", &EngineOptions::num_kv_pages, 1);
  if (!asked) lower("--max-model-len", &EngineOptions::max_model_len, kKvPageTokens);
  lower("--max-num-batched-tokens", &EngineOptions::max_num_batched_tokens, 1);
  lower("--max-num-seqs", &EngineOptions::max_num_seqs, 1);
  if (needs.encoder_bytes > 0) {
    lower("--encoder-cache-tokens", &EngineOptions::encoder_cache_tokens, kKvPageTokens);
    lower("--max-encoder-batch-tokens", &EngineOptions::max_encoder_batch_tokens, kKvPageTokens);
  }
  if (needs.swap_bytes > 0 && needs.device_is_host) {
    EngineOptions without = options;
    without.num_host_pages = 0;
    if (Fits(needs_of(without), without)) {
      const int64_t pages = LargestThatFits(needs_of, options, &EngineOptions::num_host_pages, 1);
      help.push_back(StrCat("lower --swap-space to at most ", SwapSpace(pages, needs.page_bytes)));
    }
  }
  if (!asked && sum <= static_cast<double>(needs.available_bytes)) {
    help.push_back(StrCat("raise --gpu-memory-utilization to ",
                          Fixed(std::ceil(100 * sum / static_cast<double>(needs.available_bytes)) / 100, 2)));
  }
  if (!help.empty()) {
    text += StrCat("; ", Join(help, ", or "));
  } else if (needs.weight_bytes > UsableBytes(needs, options)) {
    text +=
        "; the weights alone do not fit: give them fewer bits (for example --quantization wint4), or take a "
        "smaller model or a device with more memory";
  } else {
    text +=
        "; no flag alone helps: lower --max-model-len, --max-num-batched-tokens and --max-num-seqs together";
  }
  return InvalidArgument(std::move(text), asked ? "--num-kv-pages" : "--max-model-len");
}

}  // namespace

int64_t AvailableMemoryBytes(const std::string& root) {
  std::optional<int64_t> least;
  auto take = [&least](std::optional<int64_t> bytes) {
    if (bytes) least = std::min(least.value_or(*bytes), *bytes);
  };
  if (auto kib = ReadField(root + "/proc/meminfo", "MemAvailable:")) take(*kib * 1024);
  std::ifstream self(root + "/proc/self/cgroup");  // "4:memory:/path" (v1), "0::/path" (v2)
  for (std::string line; std::getline(self, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::vector<std::string> controllers = Split(line.substr(first + 1, second - first - 1), ',');
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (line.rfind("0::", 0) == 0) {
      take(HierarchyRoom(root + "/sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file"));
    } else if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      take(HierarchyRoom(root + "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
                         "memory.usage_in_bytes", "total_inactive_file"));
    }
  }
  return least.value_or(0);
}

StatusOr<MemoryPlan> PlanMemory(const NeedsOf& needs_of, const EngineOptions& options) {
  MemoryPlan plan;
  plan.needs = needs_of(options);
  const MemoryNeeds& needs = plan.needs;
  FD_CHECK_GE(needs.page_bytes, 1);
  FD_RETURN_IF_ERROR(CheckHostPages(needs, options));
  if (!Fits(needs, options)) return DoesNotFit(needs_of, options);
  if (options.num_kv_pages > kMaxKvPages) {
    return InvalidArgument(
        StrCat("--num-kv-pages ", options.num_kv_pages, ": a cache has at most ", kMaxKvPages, " pages of ",
               kKvPageTokens, " tokens, for example --num-kv-pages ", kMaxKvPages),
        "--num-kv-pages");
  }
  const int64_t pages_per_sequence = PagesForTokens(options.max_model_len);
  if (options.num_kv_pages > 0) {
    plan.num_kv_pages = options.num_kv_pages;
  } else {
    plan.num_kv_pages = std::min(options.max_num_seqs * pages_per_sequence, kMaxKvPages);
    if (needs.available_bytes > 0) {
      plan.num_kv_pages =
          std::min(plan.num_kv_pages, (UsableBytes(needs, options) - FixedBytes(needs)) / needs.page_bytes);
    }
  }
  plan.kv_bytes = plan.num_kv_pages * needs.page_bytes;
  plan.kv_tokens = plan.num_kv_pages * kKvPageTokens;
  plan.full_sequences = static_cast<double>(plan.num_kv_pages) / static_cast<double>(pages_per_sequence);
  return plan;
}

int64_t LongestModelLen(const NeedsOf& needs_of, const EngineOptions& options) {
  return LargestThatFits(needs_of, options, &EngineOptions::max_model_len, kKvPageTokens);
}

std::string MemoryPlan::Summary() const {
  std::string text = StrCat(
      "memory: weights ", HumanBytes(needs.weight_bytes), " + key/value pages ", HumanBytes(kv_bytes), " (",
      num_kv_pages, " pages, ", kv_tokens, " tokens, ", Fixed(full_sequences, 1),
      " full sequences) + step buffers ", HumanBytes(needs.executor_bytes), EncoderPart(needs),
      SwapPart(needs), " + workspace ", HumanBytes(needs.workspace_bytes), " = ", HumanBytes(total_bytes()));
  if (needs.available_bytes > 0) text += StrCat(" of ", HumanBytes(needs.available_bytes), " available");
  if (needs.swap_bytes > 0 && !needs.device_is_host) {
    text += StrCat("; swap space ", HumanBytes(needs.swap_bytes));
    if (needs.host_available_bytes > 0)
      text += StrCat(" of ", HumanBytes(needs.host_available_bytes), " available on the host");
  }
  return text;
}

}  // namespace fd
