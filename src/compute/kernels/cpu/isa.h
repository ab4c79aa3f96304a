// Which instruction set the CPU kernels use: read once from CPUID, lowered by --cpu-isa or
// FASTDEPLOY_ISA=avx2|avx512|avx512_bf16 for tests and comparisons.
#pragma once

#include <string>

#include "base/status.h"

namespace fd::cpu {

// Each includes the ones before it. kAvx512Bf16 includes VNNI: every CPU with the one has the other.
enum class Isa { kAvx2 = 0, kAvx512 = 1, kAvx512Bf16 = 2 };
inline constexpr int kNumIsas = 3;

const char* IsaName(Isa isa);
// AVX2, FMA and F16C are the least that the kernels run on.
bool IsCpuSupported();
Isa BestIsa();
// A level by its name, "auto" for BestIsa(). An error says which this CPU has.
StatusOr<Isa> ChooseIsa(const std::string& level);
// The one in use. Not above BestIsa().
Isa CurrentIsa();
// For tests and benchmarks, while no kernel runs; CHECKs that the machine has it.
void SetIsa(Isa isa);

}  // namespace fd::cpu
