#include "base/cpu_topology.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/strings.h"

namespace fd {
namespace {

constexpr int kMaxCpu = 1 << 16;

std::optional<int> ParseNumber(std::string_view text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0 || value >= kMaxCpu) return std::nullopt;
  return value;
}

std::optional<std::string> FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return std::string(Trim(line));
}

// Empty where the file is missing or is no list.
std::vector<int> ListIn(const std::string& path) {
  const std::optional<std::string> line = FirstLine(path);
  if (!line) return {};
  StatusOr<std::vector<int>> list = ParseCpuList(*line);
  return list.ok() ? std::move(*list) : std::vector<int>{};
}

// What both have; `a` alone where that is nothing, since a file that contradicts the mask is not believed.
std::vector<int> Narrow(std::vector<int> a, const std::vector<int>& b) {
  if (a.empty()) return b;
  std::vector<int> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both.empty() ? a : both;
}

struct Cgroup {
  std::string v2 = "/";                       // path under the unified hierarchy
  std::string cpu_v1 = "/", cpuset_v1 = "/";  // under the controllers' own
};

Cgroup ReadCgroup(const std::string& root) {
  Cgroup group;
  std::ifstream self(root + "/proc/self/cgroup");
  for (std::string line; std::getline(self, line);) {  // "3:cpu,cpuacct:/path", version 2: "0::/path"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string path = line.substr(second + 1);
    const std::string names = line.substr(first + 1, second - first - 1);
    if (names.empty()) group.v2 = path;
    for (const std::string& name : Split(names, ',')) {
      if (name == "cpu") group.cpu_v1 = path;
      if (name == "cpuset") group.cpuset_v1 = path;
    }
  }
  return group;
}

// The folders of a group and of all its parents. In a container the path may be the host's; the mount's own
// root comes last and is the container's.
std::vector<std::string> GroupFolders(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  while (!path.empty() && path != "/") {
    folders.push_back(mount + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  folders.push_back(mount);
  return folders;
}

double QuotaCpus(const std::string& root, const Cgroup& group) {
  double least = 0;
  const auto take = [&least](double quota, double period) {
    if (!(quota > 0) || !(period > 0)) return;
    least = least == 0 ? quota / period : std::min(least, quota / period);
  };
  const std::string mount = root + "/sys/fs/cgroup";
  for (const std::string& folder : GroupFolders(mount, group.v2)) {  // a parent's quota binds too
    std::ifstream file(folder + "/cpu.max");                         // "max 100000" is no limit
    double quota = 0, period = 0;
    if (file >> quota >> period) take(quota, period);
  }
  for (const char* name : {"/cpu", "/cpu,cpuacct"}) {
    for (const std::string& folder : GroupFolders(mount + name, group.cpu_v1)) {
      std::ifstream quota_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
      double quota = 0, period = 0;
      if (quota_file >> quota && period_file >> period) take(quota, period);
    }
  }
  return least;
}

// Of the innermost group that has one: it is within its parents'.
std::vector<int> CpusetCpus(const std::string& root, const Cgroup& group) {
  const std::string mount = root + "/sys/fs/cgroup";
  std::vector<std::string> files;
  for (const std::string& folder : GroupFolders(mount, group.v2))
    files.push_back(folder + "/cpuset.cpus.effective");
  for (const std::string& folder : GroupFolders(mount + "/cpuset", group.cpuset_v1)) {
    files.push_back(folder + "/cpuset.effective_cpus");
    files.push_back(folder + "/cpuset.cpus");
  }
  for (const std::string& file : files) {
    if (std::vector<int> cpus = ListIn(file); !cpus.empty()) return cpus;
  }
  return {};
}

std::map<int, int> NodesOfCpus(const std::string& root) {
  std::map<int, int> nodes;
  std::error_code error;
  std::filesystem::directory_iterator it(root + "/sys/devices/system/node", error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with("node")) continue;
    const std::optional<int> node = ParseNumber(std::string_view(name).substr(4));
    if (!node) continue;
    for (int cpu : ListIn(it->path().string() + "/cpulist")) nodes[cpu] = *node;
  }
  return nodes;
}

// The lowest CPU of the physical core, or none when it is not known.
std::optional<int> CoreOf(const std::string& root, int cpu) {
  const std::string folder = StrCat(root, "/sys/devices/system/cpu/cpu", cpu, "/topology/");
  for (const char* name : {"core_cpus_list", "thread_siblings_list"}) {  // the newer name first
    const std::vector<int> siblings = ListIn(folder + name);
    if (std::binary_search(siblings.begin(), siblings.end(), cpu)) return siblings.front();
  }
  return std::nullopt;
}

// The same from numbers, which tell siblings only among the CPUs that are looked at.
std::optional<std::string> CoreName(const std::string& root, int cpu) {
  const std::string folder = StrCat(root, "/sys/devices/system/cpu/cpu", cpu, "/topology/");
  const std::optional<std::string> package = FirstLine(folder + "physical_package_id");
  const std::optional<std::string> core = FirstLine(folder + "core_id");
  if (!package || !core || !ParseNumber(*package) || !ParseNumber(*core)) return std::nullopt;
  return StrCat(*package, ":", FirstLine(folder + "die_id").value_or("0"), ":", *core);
}

std::string Plural(int64_t n, std::string_view noun) { return StrCat(n, " ", noun, n == 1 ? "" : "s"); }

}  // namespace

StatusOr<std::vector<int>> ParseCpuList(std::string_view text) {
  std::set<int> cpus;
  if (Trim(text).empty()) return std::vector<int>{};
  for (const std::string& part : Split(Trim(text), ',')) {
    const size_t dash = part.find('-');
    const std::optional<int> first = ParseNumber(std::string_view(part).substr(0, dash));
    const std::optional<int> last =
        dash == std::string::npos ? first : ParseNumber(std::string_view(part).substr(dash + 1));
    if (!first || !last || *last < *first) {
      return InvalidArgument(
          StrCat("'", part, "' is neither a CPU's number nor a range of them, for example 0-7,16"));
    }
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.insert(cpu);
  }
  return std::vector<int>(cpus.begin(), cpus.end());
}

std::string CpuListText(const std::vector<int>& cpus) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < cpus.size();) {
    size_t end = i + 1;
    while (end < cpus.size() && cpus[end] == cpus[end - 1] + 1) ++end;
    parts.push_back(end == i + 1 ? StrCat(cpus[i]) : StrCat(cpus[i], "-", cpus[end - 1]));
    i = end;
  }
  return Join(parts, ",");
}

std::vector<int> CpuTopology::Nodes() const {
  std::set<int> nodes;
  for (const LogicalCpu& cpu : cpus) nodes.insert(cpu.node);
  return {nodes.begin(), nodes.end()};
}

int CpuTopology::NumCores() const {
  std::set<int> cores;
  for (const LogicalCpu& cpu : cpus) cores.insert(cpu.core);
  return static_cast<int>(cores.size());
}

std::vector<int> AffinityCpus() {
  // A mask grows until the kernel's fits: machines with more than 1024 CPUs refuse the usual size.
  for (int size = CPU_SETSIZE; size <= kMaxCpu; size *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(size));
    if (set == nullptr) return {};
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    std::vector<int> cpus;
    // The first thread's: the calling one may have been placed.
    const bool ok = sched_getaffinity(getpid(), bytes, set) == 0;
    for (int cpu = 0; ok && cpu < size; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (ok) return cpus;
  }
  return {};
}

CpuTopology ReadCpuTopology(const std::vector<int>& allowed, const std::string& root) {
  const Cgroup group = ReadCgroup(root);
  std::vector<int> cpus = Narrow(allowed, ListIn(root + "/sys/devices/system/cpu/online"));
  cpus = Narrow(cpus, CpusetCpus(root, group));
  if (cpus.empty()) cpus = {0};

  CpuTopology topology;
  topology.quota_cpus = QuotaCpus(root, group);
  topology.cores_known = true;
  const std::map<int, int> nodes = NodesOfCpus(root);
  std::map<std::string, int> named_cores;
  for (int cpu : cpus) {
    LogicalCpu entry{cpu, 0, cpu};
    if (const auto node = nodes.find(cpu); node != nodes.end()) entry.node = node->second;
    if (const std::optional<int> core = CoreOf(root, cpu)) {
      entry.core = *core;
    } else if (const std::optional<std::string> name = CoreName(root, cpu)) {
      entry.core = named_cores.emplace(*name, cpu).first->second;
    } else {
      topology.cores_known = false;
    }
    topology.cpus.push_back(entry);
  }
  if (!topology.cores_known) {
    for (LogicalCpu& cpu : topology.cpus) cpu.core = cpu.cpu;
  }
  return topology;
}

StatusOr<CpuTopology> KeepCpus(const CpuTopology& topology, const std::vector<int>& cpus) {
  CpuTopology kept = topology;
  kept.cpus.clear();
  std::vector<int> all;
  for (const LogicalCpu& cpu : topology.cpus) {
    all.push_back(cpu.cpu);
    if (std::find(cpus.begin(), cpus.end(), cpu.cpu) != cpus.end()) kept.cpus.push_back(cpu);
  }
  for (int cpu : cpus) {
    if (!std::binary_search(all.begin(), all.end(), cpu)) {
      return InvalidArgument(
          StrCat("CPU ", cpu, " is not among those that this process may use: ", CpuListText(all)));
    }
  }
  if (kept.cpus.empty())
    return InvalidArgument(StrCat("names no CPU; this process may use ", CpuListText(all)));
  return kept;
}

int DefaultThreads(const CpuTopology& topology) {
  int threads = topology.NumCores();
  if (topology.quota_cpus > 0 && topology.quota_cpus < threads)
    threads = static_cast<int>(topology.quota_cpus);
  return std::max(threads, 1);
}

std::string ThreadPlacement::ToString() const {
  std::string text = Plural(num_threads, "thread");
  if (cpus.empty()) return text;
  std::vector<int> sorted = cpus;
  std::sort(sorted.begin(), sorted.end());
  text += StrCat(cpus.size() == 1 ? " on CPU " : " on CPUs ", CpuListText(sorted));
  if (nodes.size() > 1) text += StrCat(" of ", nodes.size(), " nodes");
  return text;
}

namespace {

// Of one node: the first CPU of every core, then the second of every core, and so on.
struct NodeCpus {
  int node = 0;
  std::vector<std::vector<int>> ranks;

  size_t CpusUpTo(size_t rank) const {
    size_t n = 0;
    for (size_t r = 0; r < ranks.size() && r <= rank; ++r) n += ranks[r].size();
    return n;
  }
};

std::vector<NodeCpus> CpusByNode(const CpuTopology& topology) {
  std::map<int, NodeCpus> by_node;
  std::map<int, size_t> used;  // of each core
  for (const LogicalCpu& cpu : topology.cpus) {
    NodeCpus& node = by_node[cpu.node];
    node.node = cpu.node;
    const size_t rank = used[cpu.core]++;
    if (node.ranks.size() <= rank) node.ranks.resize(rank + 1);
    node.ranks[rank].push_back(cpu.cpu);
  }
  std::vector<NodeCpus> nodes;
  for (auto& [id, node] : by_node) nodes.push_back(std::move(node));
  return nodes;
}

// How many of `threads` each node gets: one at a time to the node that has fewest, among those with a CPU of
// this rank left.
std::vector<size_t> Share(const std::vector<NodeCpus>& nodes, int threads) {
  std::vector<size_t> share(nodes.size(), 0);
  size_t rank = 0;
  while (threads > 0) {
    size_t best = nodes.size();
    bool more = false;  // a higher rank has CPUs
    for (size_t i = 0; i < nodes.size(); ++i) {
      more = more || nodes[i].ranks.size() > rank + 1;
      if (share[i] < nodes[i].CpusUpTo(rank) && (best == nodes.size() || share[i] < share[best])) best = i;
    }
    if (best < nodes.size()) {
      ++share[best];
      --threads;
    } else if (more) {
      ++rank;
    } else {
      break;
    }
  }
  return share;
}

}  // namespace

ThreadPlacement PlaceThreads(const CpuTopology& topology, int num_threads, Pinning pinning) {
  ThreadPlacement placement;
  placement.num_threads = num_threads > 0 ? num_threads : DefaultThreads(topology);
  const std::vector<NodeCpus> nodes = CpusByNode(topology);
  const std::vector<size_t> share = Share(nodes, placement.num_threads);
  std::vector<int> cpus;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (share[i] == 0) continue;
    placement.nodes.push_back(nodes[i].node);
    size_t left = share[i];
    for (const std::vector<int>& rank : nodes[i].ranks) {
      const size_t n = std::min(left, rank.size());
      cpus.insert(cpus.end(), rank.begin(), rank.begin() + static_cast<std::ptrdiff_t>(n));
      left -= n;
    }
  }
  const bool fits = cpus.size() == static_cast<size_t>(placement.num_threads);
  const bool useful = placement.nodes.size() > 1 || placement.num_threads >= topology.NumCores();
  if (!fits || pinning == Pinning::kNever || (pinning == Pinning::kWhereUseful && !useful)) return placement;
  placement.cpus = std::move(cpus);
  if (pinning == Pinning::kAlways || placement.nodes.size() > 1) {
    for (const LogicalCpu& cpu : topology.cpus) {
      if (cpu.node == placement.nodes.front()) placement.caller_cpus.push_back(cpu.cpu);
    }
  }
  return placement;
}

}  // namespace fd
