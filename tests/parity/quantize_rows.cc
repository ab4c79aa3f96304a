// For quantize_rule_test.py: quantises the matrices on stdin and writes the bytes of each on every
// instruction set of this machine. In: int32 n, k, bits, group_size, source (0 bfloat16, 1 float32), then
// [n][k] of it. Out: the number of instruction sets, then for each matrix and set int8 q [n][k], bfloat16
// scales [n][groups].
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/thread_pool.h"
#include "compute/kernels/cpu/isa.h"
#include "compute/kernels/cpu/linear_quant.h"
#include "compute/ops/linear.h"

namespace fd {
namespace {

void Write(const void* data, size_t bytes) {
  FD_CHECK_EQ(std::fwrite(data, 1, bytes, stdout), bytes, "stdout is closed");
}

// Feature i of the panels that kernels/cpu/linear_quant.h describes.
std::vector<int8_t> Unpack(const ops::LinearWeight& weight, int64_t i, int bits) {
  const uint8_t* panel =
      weight.data.view().As<uint8_t>() + i / 16 * cpu::QuantPanelBytes(weight.k, bits) + i % 16 * 4;
  std::vector<int8_t> q;
  for (int64_t j = 0; j < weight.k; ++j) {
    if (bits == 8) {
      q.push_back(static_cast<int8_t>(panel[j / 4 * 64 + j % 4] - 128));
    } else {
      q.push_back(static_cast<int8_t>((panel[j / 8 * 64 + j % 4] >> (j / 4 % 2 * 4) & 15) - 8));
    }
  }
  return q;
}

int Main() {
  ThreadPool threads{2};
  Workspace workspace{Device{}, 1 << 20};
  ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  const int isas = static_cast<int>(cpu::BestIsa()) + 1;
  Write(&isas, 4);
  int32_t header[5];
  while (std::fread(header, 4, 5, stdin) == 5) {
    const int64_t n = header[0], k = header[1];
    const ops::QuantScheme scheme = {header[2], header[3]};
    const Tensor w(header[4] == 0 ? DType::kBFloat16 : DType::kFloat32, Device{}, {n, k});
    const size_t bytes = static_cast<size_t>(w.size_bytes());
    FD_CHECK_EQ(std::fread(w.view().data, 1, bytes, stdin), bytes, "stdin ended within a matrix");
    for (int isa = 0; isa < isas; ++isa) {
      cpu::SetIsa(static_cast<cpu::Isa>(isa));
      const ops::LinearWeight weight = ops::QuantizeLinear(ctx, {w.view()}, false, scheme);
      for (int64_t i = 0; i < n; ++i) Write(Unpack(weight, i, scheme.bits).data(), static_cast<size_t>(k));
      const int64_t groups = cpu::QuantGroups(k, scheme.group_size);
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t g = 0; g < groups; ++g)
          Write(weight.scales.view().As<BFloat16>() + (i / 16 * groups + g) * 16 + i % 16, 2);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace fd

int main() { return fd::Main(); }
