#include "compute/ops/rows.h"

#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

constexpr DType kActs[] = {DType::kFloat32, DType::kBFloat16};

Tensor Ints(std::vector<int32_t> values, Shape shape) {
  Tensor t(DType::kInt32, Device{}, shape);
  std::memcpy(t.view().data, values.data(), values.size() * 4);
  return t;
}

TEST(CudaRows, CopyBetweenDevicesTypesAndStrides) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(1);
  for (int64_t rows : {1, 3, 130}) {
    for (int64_t n : {1, 2, 7, 8, 64, 1000}) {
      for (DType from : kActs) {
        const Tensor wide = Random(rng, from, {rows, n + 5}, 1e3f);
        const TensorView in = wide.view().Columns(2, n);
        for (DType to : kActs) {
          Tensor expected(to, Device{}, {rows, n});
          ops::Copy(cpu.ctx, expected, in);
          // Up with conversion, sideways into a slice, down with none.
          Tensor up = PoisonedOnDevice(gpu, to, {rows, n});
          ops::Copy(gpu.ctx, up, in);
          Tensor slice = PoisonedOnDevice(gpu, to, {rows, n + 3});
          ops::Copy(gpu.ctx, slice.view().Columns(1, n), up);
          ExpectSameBits(ToHost(gpu, slice.view().Columns(1, n)), expected);
          // Up unchanged, conversion on the device, and on the way down.
          const Tensor raw = ToDevice(gpu, in);
          Tensor converted = PoisonedOnDevice(gpu, to, {rows, n});
          ops::Copy(gpu.ctx, converted, raw);
          ExpectSameBits(ToHost(gpu, converted), expected);
          Tensor down(to, Device{}, {rows, n});
          ops::Copy(gpu.ctx, down, raw);
          cuda::Synchronize(gpu.stream);
          ExpectSameBits(down, expected);
        }
      }
    }
  }
  EXPECT_EQ(gpu.workspace.Mark(), 0);
}

TEST(CudaRows, EmbeddingGatherScatter) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(2);
  const int64_t vocab = 40, tokens = 23;
  std::vector<int32_t> values;
  for (int32_t i = 0; i < tokens; ++i) values.push_back(i * 17 % static_cast<int32_t>(vocab));
  const Tensor ids = Ints(values, {tokens});
  const Tensor device_ids = ToDevice(gpu, ids);
  for (int64_t n : {1, 3, 8, 66, 192, 1025}) {
    for (DType stored : kActs) {
      const Tensor table = Random(rng, stored, {vocab, n});
      const Tensor device_table = ToDevice(gpu, table);
      for (DType act : kActs) {
        Tensor expected(act, Device{}, {tokens, n});
        ops::Embedding(cpu.ctx, expected, table, ids);
        Tensor out = PoisonedOnDevice(gpu, act, {tokens, n});
        ops::Embedding(gpu.ctx, out, device_table, device_ids);
        ExpectSameBits(ToHost(gpu, out), expected);
      }
      Tensor gathered = PoisonedOnDevice(gpu, stored, {tokens, n});
      ops::GatherRows(gpu.ctx, gathered, device_table, device_ids);
      Tensor expected(stored, Device{}, {tokens, n});
      ops::GatherRows(cpu.ctx, expected, table, ids);
      ExpectSameBits(ToHost(gpu, gathered), expected);
      Tensor back(stored, kGpu, {vocab, n}), host_back(stored, Device{}, {vocab, n});
      ops::ScatterRows(gpu.ctx, back, gathered, device_ids);
      ops::ScatterRows(cpu.ctx, host_back, expected, ids);
      ExpectSameBits(ToHost(gpu, back), host_back);
    }
  }
}

}  // namespace
}  // namespace fd
