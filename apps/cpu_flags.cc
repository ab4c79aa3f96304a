#include "cpu_flags.h"

#include "base/check.h"
#include "base/log.h"
#include "base/memory_policy.h"
#include "base/strings.h"

namespace fd {
namespace {

Status ParseAffinity(const std::string& text, CpuFlags* values) {
  values->pin = text != "none";
  values->cpus.clear();
  if (text == "auto" || text == "none") return OkStatus();
  StatusOr<std::vector<int>> cpus = ParseCpuList(text);
  if (!cpus.ok()) return InvalidArgument(StrCat(cpus.status().message(), "; auto and none are allowed too"));
  FD_RETURN_IF_ERROR(KeepCpus(ReadCpuTopology(), *cpus).status());
  values->cpus = std::move(*cpus);
  return OkStatus();
}

}  // namespace

void AddCpuFlags(FlagSet& flags, CpuFlags* values) {
  flags.Integer("threads", &values->threads, {0, 1024, 2}, "Threads that compute",
                "one a core, within the cgroup's quota");
  flags.Custom("cpu-affinity", "auto|none|LIST",
               "CPUs they run on: auto pins them where they take every core or several nodes, none leaves "
               "them to the scheduler, a list as 0-7,16 pins them to these",
               "auto", [values](const std::string& text) { return ParseAffinity(text, values); });
  flags.Custom("cpu-isa", "LEVEL",
               "Instruction set of the CPU's kernels, not above what it has: auto, avx2, avx512, avx512_bf16",
               "auto", [values](const std::string& text) -> Status {
                 values->isa.reset();
                 if (text == "auto") return OkStatus();  // what FASTDEPLOY_ISA says stays
                 FD_ASSIGN_OR_RETURN(values->isa, cpu::ChooseIsa(text));
                 return OkStatus();
               });
}

CpuTopology TopologyFor(const CpuFlags& flags) {
  CpuTopology topology = ReadCpuTopology();
  if (flags.cpus.empty()) return topology;
  StatusOr<CpuTopology> kept = KeepCpus(topology, flags.cpus);
  return kept.ok() ? *kept : topology;  // a CPU went offline since the flag was read
}

ThreadPlacement PlacementFor(const CpuFlags& flags, const CpuTopology& topology, bool computes) {
  const Pinning pinning = !flags.cpus.empty()     ? Pinning::kAlways
                          : flags.pin && computes ? Pinning::kWhereUseful
                                                  : Pinning::kNever;
  return PlaceThreads(topology, static_cast<int>(flags.threads), pinning);
}

ThreadPlacement ApplyCpuFlags(const CpuFlags& flags, bool computes) {
  if (flags.isa) cpu::SetIsa(*flags.isa);
  ThreadPlacement placement = PlacementFor(flags, TopologyFor(flags), computes);
  if (computes && flags.pin && SetInterleavedNodes(placement.nodes)) {
    LogInfo("memory: weights and key/value cache are spread over the nodes ", CpuListText(placement.nodes),
            ", page by page (--cpu-affinity none leaves that to the system)");
  }
  return placement;
}

}  // namespace fd
