// fastdeploy doctor: what this machine has, what will be used, and what is wrong with it, each with its fix.
#include <dlfcn.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/strings.h"
#include "command.h"
#include "compute/kernels/cpu/isa.h"
#include "compute/kernels/cuda/device.h"
#include "cpu_flags.h"
#include "diagnosis.h"
#include "engine/plan/memory_plan.h"
#include "flag_set.h"
#include "model/config/model_config.h"
#include "model/weights/inspect.h"
#include "model_flags.h"

namespace fd {
namespace {

bool LibcudaFound() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

Facts Gather(const CpuFlags& flags) {
  Facts facts;
  facts.machine = ReadMachine();
  facts.topology = TopologyFor(flags);
  facts.placement = PlacementFor(flags, facts.topology, true);
  facts.usable_memory_bytes = AvailableMemoryBytes();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max != RLIM_INFINITY)
    facts.max_open_files = static_cast<int64_t>(limit.rlim_max);
  if (const char* devices = std::getenv("CUDA_VISIBLE_DEVICES"); devices != nullptr) {
    facts.cuda_visible_devices = devices;
    facts.cuda_visible_devices_set = true;
  }
  facts.libcuda_found = LibcudaFound();
  facts.cuda_built = cuda::IsBuilt();
  if (!facts.cuda_built) return facts;
  facts.cuda = cuda::GetInstallation();
  for (int i = 0; i < facts.cuda.device_count; ++i) {
    GpuFacts gpu;
    if (const char* error = cuda::TryGetDeviceInfo(i, &gpu.info); error != nullptr) gpu.error = error;
    if (gpu.error.empty()) {
      if (const char* error = cuda::TryKernels(i); error != nullptr) gpu.kernel_error = error;
    }
    facts.gpus.push_back(gpu);
  }
  return facts;
}

// Whether a checkpoint's weights fit, from config.json and the headers of its weight files.
struct ModelFit {
  std::string dir;
  std::string error;  // why it cannot be served at all; "" when it can
  std::string family;
  int64_t weight_bytes = 0;
  bool cpu = false;
  std::vector<bool> gpus;  // as Facts::gpus
  bool Anywhere() const { return cpu || std::find(gpus.begin(), gpus.end(), true) != gpus.end(); }
};
ModelFit FitOf(const std::string& dir, const Facts& facts) {
  ModelFit fit;
  fit.dir = dir;
  fit.gpus.assign(facts.gpus.size(), false);
  const auto failed = [&](const Status& status) {
    fit.error = status.message();
    return fit;
  };
  if (Status status = CheckModelFolder(dir); !status.ok()) return failed(status);
  const StatusOr<ModelConfig> config = LoadModelConfig(dir);
  if (!config.ok()) return failed(config.status());
  fit.family = config->family;
  const StatusOr<CheckpointListing> listing = ListTensors(dir);
  if (!listing.ok()) return failed(listing.status());
  fit.weight_bytes = listing->size_bytes;
  fit.cpu =
      CpuServes(facts) && (facts.usable_memory_bytes == 0 || fit.weight_bytes < facts.usable_memory_bytes);
  for (size_t i = 0; i < facts.gpus.size(); ++i)
    fit.gpus[i] = GpuServes(facts.gpus[i]) && fit.weight_bytes < facts.gpus[i].info.free_bytes;
  return fit;
}

void AddModelProblems(const ModelFit& fit, std::vector<Problem>* problems) {
  if (!fit.error.empty()) {
    problems->push_back({true, fit.error,
                         "fastdeploy doctor MODEL takes a checkpoint's folder, for example "
                         "models/ernie-4.5-vl-tiny"});
  } else if (!fit.Anywhere()) {
    problems->push_back(
        {true,
         StrCat("the weights of ", fit.dir, ", ", HumanBytes(static_cast<double>(fit.weight_bytes)),
                ", fit into no memory here"),
         "take a smaller checkpoint or a device with more memory"});
  }
}

std::string AutoName(const Facts& facts) {
  const std::optional<int> gpu = AutoGpu(facts);
  return gpu ? StrCat("cuda:", *gpu) : "cpu";
}

bool CanServe(const Facts& facts, const std::optional<ModelFit>& fit) {
  if (fit) return fit->error.empty() && fit->Anywhere();
  return CpuServes(facts) || std::any_of(facts.gpus.begin(), facts.gpus.end(), GpuServes);
}

// "2 nodes, 16 cores with SMT, quota 2.5 CPUs".
std::string DescribeTopology(const CpuTopology& topology) {
  const auto count = [](size_t n, const char* one) { return StrCat(n, " ", one, n == 1 ? "" : "s"); };
  const size_t cores = static_cast<size_t>(topology.NumCores());
  std::string text = StrCat(count(topology.Nodes().size(), "node"), ", ");
  if (!topology.cores_known) {
    text += "cores unknown";
  } else {
    text += StrCat(count(cores, "core"), cores < topology.cpus.size() ? " with SMT" : " without SMT");
  }
  return text + (topology.quota_cpus > 0 ? StrCat(", quota ", Fixed(topology.quota_cpus, 1), " CPUs")
                                         : std::string(", no quota"));
}

JsonArray NumbersJson(const std::vector<int>& numbers) {
  JsonArray out;
  for (int number : numbers) out.push_back(number);
  return out;
}

std::string Bytes(int64_t bytes) { return HumanBytes(static_cast<double>(bytes)); }

void PrintText(const Facts& facts, const std::vector<Problem>& problems, const std::optional<ModelFit>& fit) {
  const MachineFacts& machine = facts.machine;
  std::vector<std::string> missing;
  for (const std::string& name : KnownCpuFeatures()) {
    if (!machine.HasFeature(name)) missing.push_back(name);
  }
  std::string text = StrCat(
      "program    FastDeploy.cpp " FASTDEPLOY_VERSION ", CUDA kernels: ", facts.cuda_built ? "yes" : "no",
      facts.cuda_built ? "" : " (cmake --preset cuda builds them)", "\n");
  text += StrCat("cpu        ", machine.cpu_model.empty() ? "unknown model" : machine.cpu_model, ", ",
                 facts.topology.cpus.size(), " of ", machine.processors, " processors for this process\n");
  text += StrCat("           ", Join(machine.cpu_features, ", "),
                 missing.empty() ? "" : "; not: ", Join(missing, ", "), "\n");
  if (CpuServes(facts)) text += StrCat("           kernels: ", cpu::IsaName(cpu::CurrentIsa()), "\n");
  text += StrCat("threads    ", DescribeTopology(facts.topology), "; ", facts.placement.ToString(),
                 facts.placement.cpus.empty() ? ", not pinned" : ", pinned",
                 facts.placement.nodes.size() > 1 ? ", memory spread over the nodes" : "", "\n");
  text += StrCat("memory     ", Bytes(facts.usable_memory_bytes), " available to this process of ",
                 Bytes(machine.memory_total_bytes),
                 machine.transparent_huge_pages.empty() ? "" : "; transparent huge pages: ",
                 machine.transparent_huge_pages, "\n");
  text += StrCat("files      ",
                 facts.max_open_files > 0 ? StrCat(facts.max_open_files) : std::string("any number"),
                 " open at once\n");
  text += StrCat("driver     ",
                 machine.nvidia_kernel_driver.empty() ? "no NVIDIA kernel driver"
                                                      : "NVIDIA " + machine.nvidia_kernel_driver,
                 ", libcuda.so.1 ", facts.libcuda_found ? "found" : "not found");
  if (facts.cuda.driver_version > 0) text += StrCat(", knows CUDA ", CudaVersion(facts.cuda.driver_version));
  text += "\n";
  if (facts.cuda_built) {
    text += StrCat("toolkit    built with CUDA ", CudaVersion(facts.cuda.runtime_version), ", cuBLASLt ",
                   CublasVersion(facts.cuda.cublas_lt_version), "\n");
    if (facts.gpus.empty())
      text += StrCat("gpu        none", facts.cuda.error == nullptr ? "" : ": ",
                     facts.cuda.error == nullptr ? "" : facts.cuda.error, "\n");
  }
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const GpuFacts& gpu = facts.gpus[i];
    text += StrCat("gpu        cuda:", i, ", ");
    if (!gpu.error.empty()) {
      text += gpu.error + "\n";
      continue;
    }
    text += StrCat(static_cast<const char*>(gpu.info.name), ", compute capability ", gpu.info.major, ".",
                   gpu.info.minor, ", ", gpu.info.multiprocessors, " multiprocessors, ",
                   Bytes(gpu.info.free_bytes), " free of ", Bytes(gpu.info.total_bytes), "\n");
  }
  text += StrCat("--device   auto takes ", AutoName(facts), "\n");
  if (fit && fit->error.empty()) {
    text += StrCat("model      ", fit->dir, ", ", fit->family, ", weights ", Bytes(fit->weight_bytes),
                   "; fit on: ");
    std::vector<std::string> where;
    if (fit->cpu) where.emplace_back("cpu");
    for (size_t i = 0; i < fit->gpus.size(); ++i) {
      if (fit->gpus[i]) where.push_back(StrCat("cuda:", i));
    }
    text += StrCat(where.empty() ? "nothing" : Join(where, ", "), "\n");
  }
  for (const Problem& problem : problems)
    text += StrCat(problem.fatal ? "error      " : "warning    ", problem.what, "; fix: ", problem.fix, "\n");
  text += StrCat("verdict    ", CanServe(facts, fit) ? "can serve" : "cannot serve",
                 fit && fit->error.empty() ? " " + fit->dir : std::string(), "\n");
  std::fputs(text.c_str(), stdout);
}

void PrintJson(const Facts& facts, const std::vector<Problem>& problems, const std::optional<ModelFit>& fit) {
  const MachineFacts& machine = facts.machine;
  JsonObject features;
  for (const std::string& name : KnownCpuFeatures()) features.Set(name, machine.HasFeature(name));
  JsonArray gpus;
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const GpuFacts& gpu = facts.gpus[i];
    JsonObject out{{"device", StrCat("cuda:", i)}, {"serves", GpuServes(gpu)}};
    if (gpu.error.empty()) {
      out.Set("name", static_cast<const char*>(gpu.info.name));
      out.Set("compute_capability", StrCat(gpu.info.major, ".", gpu.info.minor));
      out.Set("multiprocessors", gpu.info.multiprocessors);
      out.Set("memory_total_bytes", gpu.info.total_bytes);
      out.Set("memory_free_bytes", gpu.info.free_bytes);
    } else {
      out.Set("error", gpu.error);
    }
    gpus.push_back(std::move(out));
  }
  JsonArray found;
  for (const Problem& problem : problems) {
    found.push_back(JsonObject{
        {"severity", problem.fatal ? "error" : "warning"}, {"what", problem.what}, {"fix", problem.fix}});
  }
  const auto version = [](int64_t number, const std::string& text) {
    return number > 0 ? Json(text) : Json(nullptr);
  };
  const cuda::Installation& installed = facts.cuda;
  JsonObject out{
      {"version", FASTDEPLOY_VERSION},
      {"cpu",
       JsonObject{
           {"model", machine.cpu_model},
           {"processors", machine.processors},
           {"usable_processors", static_cast<int64_t>(facts.topology.cpus.size())},
           {"nodes", static_cast<int64_t>(facts.topology.Nodes().size())},
           {"cores", facts.topology.cores_known ? Json(facts.topology.NumCores()) : Json(nullptr)},
           {"quota_cpus", facts.topology.quota_cpus > 0 ? Json(facts.topology.quota_cpus) : Json(nullptr)},
           {"threads", facts.placement.num_threads},
           {"thread_cpus", NumbersJson(facts.placement.cpus)},
           {"features", std::move(features)},
           {"kernels", CpuServes(facts) ? Json(cpu::IsaName(cpu::CurrentIsa())) : Json(nullptr)},
           {"serves", CpuServes(facts)}}},
      {"memory", JsonObject{{"total_bytes", machine.memory_total_bytes},
                            {"available_bytes", facts.usable_memory_bytes},
                            {"transparent_huge_pages", machine.transparent_huge_pages}}},
      {"max_open_files", facts.max_open_files > 0 ? Json(facts.max_open_files) : Json(nullptr)},
      {"cuda",
       JsonObject{
           {"built", facts.cuda_built},
           {"kernel_driver", machine.nvidia_kernel_driver},
           {"libcuda", facts.libcuda_found},
           {"driver_cuda", version(installed.driver_version, CudaVersion(installed.driver_version))},
           {"runtime", version(installed.runtime_version, CudaVersion(installed.runtime_version))},
           {"cublas_lt", version(installed.cublas_lt_version, CublasVersion(installed.cublas_lt_version))},
           {"error", installed.error == nullptr ? Json(nullptr) : Json(installed.error)}}},
      {"gpus", std::move(gpus)},
      {"device_auto", AutoName(facts)}};
  if (fit) {
    JsonArray where;
    if (fit->cpu) where.push_back("cpu");
    for (size_t i = 0; i < fit->gpus.size(); ++i) {
      if (fit->gpus[i]) where.push_back(StrCat("cuda:", i));
    }
    out.Set("model", JsonObject{{"checkpoint", fit->dir},
                                {"family", fit->family},
                                {"weight_bytes", fit->weight_bytes},
                                {"fits_on", std::move(where)},
                                {"error", fit->error.empty() ? Json(nullptr) : Json(fit->error)}});
  }
  out.Set("problems", std::move(found));
  out.Set("can_serve", CanServe(facts, fit));
  std::puts(WriteJson(out).c_str());
}

}  // namespace

int RunDoctor(const std::vector<std::string>& args) {
  bool json = false;
  std::string model_dir;
  CpuFlags cpu_flags;
  FlagSet flags(
      "fastdeploy doctor [MODEL] [FLAGS]",
      "Prints what this machine has, what would compute, and what is wrong, each with its fix. Ends with 0 "
      "when something can serve (with MODEL: when its weights fit somewhere), else with 1.");
  flags.Group("Model");
  flags.Text("model", &model_dir, "A checkpoint's folder; also the first word", "DIR", "none");
  flags.Group("Processors, as serve, run and bench take them");
  AddCpuFlags(flags, &cpu_flags);
  flags.Group("Output");
  flags.Switch("json", &json, "One JSON object instead of text");
  const StatusOr<bool> parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("doctor", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (model_dir.empty() && !words.empty()) {
    if (Status status = TakeModel(&model_dir, &words); !status.ok()) return UsageError("doctor", status);
  }
  if (!words.empty())
    return UsageError("doctor", InvalidArgument(StrCat("unexpected word '", words[0], "'")));

  if (cpu_flags.isa) cpu::SetIsa(*cpu_flags.isa);
  const Facts facts = Gather(cpu_flags);
  std::vector<Problem> problems = FindProblems(facts);
  std::optional<ModelFit> fit;
  if (!model_dir.empty()) {
    fit = FitOf(model_dir, facts);
    AddModelProblems(*fit, &problems);
  }
  if (json) {
    PrintJson(facts, problems, fit);
  } else {
    PrintText(facts, problems, fit);
  }
  return CanServe(facts, fit) ? kExitOk : kExitFailure;
}

}  // namespace fd
