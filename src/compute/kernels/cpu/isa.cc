#include "compute/kernels/cpu/isa.h"

#include <atomic>
#include <cstdlib>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"

namespace fd::cpu {

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

bool IsCpuSupported() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

Isa BestIsa() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq")) {
    return Isa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") ? Isa::kAvx512Bf16
                                                                                      : Isa::kAvx512;
}

StatusOr<Isa> ChooseIsa(const std::string& level) {
  const Isa best = BestIsa();
  if (level == "auto") return best;
  std::string here = "auto";
  bool known = false;
  for (int i = 0; i < kNumIsas; ++i) {
    const Isa isa = static_cast<Isa>(i);
    known = known || level == IsaName(isa);
    if (isa > best) continue;
    if (level == IsaName(isa)) return isa;
    here += StrCat(", ", IsaName(isa));
  }
  return InvalidArgument(StrCat(known ? "this CPU has no more than " : "no such level; this CPU has up to ",
                                IsaName(best), ", so allowed are ", here, ", for example avx2"));
}

namespace {

Isa FromEnvironment() {
  const char* wanted = std::getenv("FASTDEPLOY_ISA");
  if (wanted == nullptr || *wanted == '\0') return BestIsa();
  const StatusOr<Isa> isa = ChooseIsa(wanted);
  if (isa.ok()) return *isa;
  LogWarning("FASTDEPLOY_ISA=", wanted, ": ", isa.status().message(), "; using ", IsaName(BestIsa()));
  return BestIsa();
}

std::atomic<int>& Current() {
  static std::atomic<int> current{static_cast<int>(FromEnvironment())};
  return current;
}

}  // namespace

Isa CurrentIsa() { return static_cast<Isa>(Current().load(std::memory_order_relaxed)); }

void SetIsa(Isa isa) {
  FD_CHECK(isa <= BestIsa(), "this CPU has no ", IsaName(isa));
  Current().store(static_cast<int>(isa), std::memory_order_relaxed);
}

}  // namespace fd::cpu
