#include "engine/plan/memory_plan.h"

#include <algorithm>
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

StatusOr<MemoryPlan> PlanMemory(const MemoryNeeds& needs, const EngineOptions& options) {
  FD_CHECK_GE(needs.page_bytes, 1);
  MemoryPlan plan;
  plan.needs = needs;
  const int64_t fixed = needs.weight_bytes + needs.executor_bytes + needs.workspace_bytes;
  const int64_t pages_per_sequence = PagesForTokens(options.max_model_len);
  const auto usable = static_cast<int64_t>(static_cast<double>(needs.available_bytes) * needs.utilization);
  const std::string sum =
      StrCat("weights ", HumanBytes(needs.weight_bytes), " + step buffers ", HumanBytes(needs.executor_bytes),
             " + workspace ", HumanBytes(needs.workspace_bytes));
  if (options.num_kv_pages > 0) {
    plan.num_kv_pages = options.num_kv_pages;
    // Compared by division: the product may overflow.
    if (needs.available_bytes > 0 &&
        plan.num_kv_pages > std::max<int64_t>(needs.available_bytes - fixed, 0) / needs.page_bytes) {
      return InvalidArgument(
          StrCat("not enough memory: ", sum, " + ", plan.num_kv_pages, " key/value pages of ",
                 HumanBytes(needs.page_bytes), " do not fit into the ", HumanBytes(needs.available_bytes),
                 " that are available: lower --num-kv-pages to at most ",
                 std::max<int64_t>((needs.available_bytes - fixed) / needs.page_bytes, 0)),
          "--num-kv-pages");
    }
  } else {
    plan.num_kv_pages = options.max_num_seqs * pages_per_sequence;
    if (needs.available_bytes > 0) {
      const int64_t pages_that_fit = std::max<int64_t>(usable - fixed, 0) / needs.page_bytes;
      if (pages_that_fit < pages_per_sequence) {
        std::string help = pages_that_fit > 0 ? StrCat("lower --max-model-len to at most ",
                                                       pages_that_fit * kKvPageTokens, ", ")
                                              : std::string();
        return InvalidArgument(
            StrCat("not enough memory: ", sum, " leave ",
                   HumanBytes(static_cast<double>(std::max<int64_t>(usable - fixed, 0))), " of ",
                   HumanBytes(usable), " (--gpu-memory-utilization ", needs.utilization, " of ",
                   HumanBytes(needs.available_bytes), ") for keys and values, but one sequence of ",
                   "--max-model-len ", options.max_model_len, " needs ",
                   HumanBytes(static_cast<double>(pages_per_sequence * needs.page_bytes)), ": ", help,
                   "lower --max-num-batched-tokens or raise --gpu-memory-utilization"),
            "--max-model-len");
      }
      plan.num_kv_pages = std::min(plan.num_kv_pages, pages_that_fit);
    }
  }
  plan.kv_bytes = plan.num_kv_pages * needs.page_bytes;
  plan.kv_tokens = plan.num_kv_pages * kKvPageTokens;
  plan.full_sequences = static_cast<double>(plan.num_kv_pages) / static_cast<double>(pages_per_sequence);
  return plan;
}

std::string MemoryPlan::Summary() const {
  std::string text =
      StrCat("memory: weights ", HumanBytes(needs.weight_bytes), " + key/value pages ", HumanBytes(kv_bytes),
             " (", num_kv_pages, " pages, ", kv_tokens, " tokens, ", Fixed(full_sequences, 1),
             " full sequences) + step buffers ", HumanBytes(needs.executor_bytes), " + workspace ",
             HumanBytes(needs.workspace_bytes), " = ", HumanBytes(total_bytes()));
  if (needs.available_bytes > 0) text += StrCat(" of ", HumanBytes(needs.available_bytes), " available");
  return text;
}

}  // namespace fd
