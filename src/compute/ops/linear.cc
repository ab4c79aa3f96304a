#include "compute/ops/linear.h"

#include <algorithm>

#include "compute/kernels/cpu/linear.h"
#include "compute/kernels/cpu/linear_quant.h"
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/linear.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/linear_cpu.h"
#include "compute/ops/linear_cuda.h"
#include "compute/ops/random.h"
#include "compute/ops/row_ranges.h"
#include "compute/ops/upload.h"

namespace fd::ops {

namespace {

constexpr int64_t kPanel = cpu::kPanelFeatures;

int64_t NumPanels(int64_t n) { return (n + kPanel - 1) / kPanel; }

// Float32 weights of so few features also get their bfloat16 parts: twice the memory of something small.
constexpr int64_t kMaxSplitFeatures = 512;
// Up to so many rows the plain kernel is faster than three products and their sum.
constexpr int64_t kMaxSimpleRows = 64;
// Rows made of panels for a GPU, at a time.
constexpr int64_t kUnpackedBytes = 8 << 20;

// bfloat16 rows are packed in pairs.
int64_t PackedDepth(DType dtype, int64_t k) { return dtype == DType::kBFloat16 ? (k + 1) / 2 * 2 : k; }

LinearWeight NewWeight(const Context& ctx, DType dtype, int64_t n, int64_t k) {
  FD_CHECK(dtype == DType::kBFloat16 || dtype == DType::kFloat32, DTypeName(dtype));
  LinearWeight weight;
  weight.kind = dtype == DType::kBFloat16 ? WeightKind::kBFloat16 : WeightKind::kFloat32;
  weight.n = n;
  weight.k = k;
  if (OnCuda(ctx)) {
    cuda::PrepareLinear(ctx.stream);
    weight.data = NewTensor(ctx, dtype, {n, k});
  } else {
    weight.data = NewTensor(ctx, dtype, {NumPanels(n), PackedDepth(dtype, k) * kPanel});
  }
  return weight;
}

// What is made of the uploaded rows.
void FinishCuda(const Context& ctx, LinearWeight* weight) {
  const int64_t n = weight->n, k = weight->k;
  if (weight->kind == WeightKind::kBFloat16 && PaddedK(k) != k) {
    const int64_t row_bytes = PaddedK(k) * 2;
    weight->padded = NewTensor(ctx, DType::kBFloat16, {n, PaddedK(k)});
    cuda::FillBytesAsync(weight->padded.view().data, 0, n * row_bytes, ctx.stream);
    cuda::CopyRowsAsync(weight->padded.view().data, row_bytes, weight->data.view().data, k * 2, k * 2, n,
                        ctx.stream);
  }
  if (weight->kind != WeightKind::kFloat32 || n > kMaxSplitFeatures) return;
  weight->split = NewTensor(ctx, DType::kBFloat16, {3 * weight->n, weight->k});
  cuda::SplitFloat32(weight->split.view().data, weight->data.view().data, weight->n, weight->k, ctx.stream);
}

// Rows [first_row, first_row + rows) of the [n, k] weight on the device; transposed parts are turned on the
// host.
template <typename T>
void UploadPart(const Context& ctx, const LinearWeight& weight, int64_t first_row, const TensorView& part,
                bool transposed) {
  T* to = weight.data.view().As<T>() + first_row * weight.k;
  const T* from = part.As<T>();
  const int64_t k = weight.k, row_bytes = k * static_cast<int64_t>(sizeof(T));
  if (!transposed && part.IsContiguous()) {
    return CopyToDevice(ctx, to, from, part.dim(0) * row_bytes);
  }
  if (!transposed) {
    cuda::CopyRowsAsync(to, row_bytes, from, part.row_stride * static_cast<int64_t>(sizeof(T)), row_bytes,
                        part.dim(0), ctx.stream);
    return;
  }
  const int64_t rows = part.dim(1);
  std::vector<T> turned(static_cast<size_t>(rows * k));
  ctx.threads->ParallelFor(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = 0; p < k; ++p)
      for (int64_t r = begin; r < end; ++r)
        turned[static_cast<size_t>(r * k + p)] = from[p * part.row_stride + r];
  });
  CopyToDevice(ctx, to, turned.data(), rows * row_bytes);
}

bool LinearOnTensorCores(const cuda::LinearArgs& args, void* stream) {
  return args.invariant ? cuda::LinearInvariant(args, stream) : cuda::LinearLt(args, stream);
}

void LinearCuda(const Context& ctx, const TensorView& out, const TensorView& in, const LinearWeight& weight,
                const TensorView& bias) {
  CheckOnDevice(ctx, {&out, &in, &weight.data.view(), &bias});
  if (IsQuantized(weight.kind)) {
    cuda::QuantLinear args = CudaQuantArgs(out, in, weight, bias);
    args.linear.invariant = ctx.batch_invariant;
    return cuda::LinearQuant(args, ctx.stream);
  }
  cuda::LinearArgs args = CudaLinearArgs(out, in, weight.data, bias);
  args.invariant = ctx.batch_invariant;
  const bool many = args.invariant || args.m > kMaxSimpleRows;
  if (in.dtype == DType::kBFloat16 && weight.split.view().data != nullptr && many) {
    const int64_t mark = ctx.workspace->Mark();
    const TensorView parts = ctx.workspace->Take(DType::kFloat32, {args.m, 3 * args.n});
    cuda::LinearArgs three = args;
    three.out = parts.data;
    three.out_type = DType::kFloat32;
    three.out_stride = three.n = 3 * args.n;
    three.weight = weight.split.view().data;
    three.weight_type = DType::kBFloat16;
    three.bias = nullptr;
    const bool done = LinearOnTensorCores(three, ctx.stream);
    if (done) cuda::AddSplitParts(args, parts.As<float>(), ctx.stream);
    ctx.workspace->Release(mark);
    if (done) return;
  }
  if (in.dtype == DType::kBFloat16 && weight.padded.view().data != nullptr && many) {
    const int64_t mark = ctx.workspace->Mark();
    const TensorView rows = ctx.workspace->Take(DType::kBFloat16, {args.m, PaddedK(args.k)});
    cuda::FillBytesAsync(rows.data, 0, rows.NumElements() * 2, ctx.stream);
    cuda::CopyRowsAsync(rows.data, rows.dim(1) * 2, in.data, in.row_stride * 2, args.k * 2, args.m,
                        ctx.stream);
    cuda::LinearArgs aligned = args;
    aligned.in = rows.data;
    aligned.weight = weight.padded.view().data;
    aligned.k = aligned.in_stride = rows.dim(1);
    const bool done = LinearOnTensorCores(aligned, ctx.stream);
    ctx.workspace->Release(mark);
    if (done) return;
  }
  cuda::Linear(args, ctx.stream);
}

}  // namespace

int64_t LinearWeightBytes(const Context& ctx, DType dtype, int64_t n, int64_t k, const QuantScheme& scheme) {
  if (scheme.bits != 0) {
    return Arena::PaddedBytes(NumPanels(n) * cpu::QuantPanelBytes(k, scheme.bits)) +
           Arena::PaddedBytes(NumPanels(n) * cpu::QuantGroups(k, scheme.group_size) * kPanel * 2);
  }
  if (OnCuda(ctx)) {
    const bool split = dtype == DType::kFloat32 && n <= kMaxSplitFeatures;
    const bool padded = dtype == DType::kBFloat16 && PaddedK(k) != k;
    return Arena::PaddedBytes(n * k * DTypeBytes(dtype)) + (split ? Arena::PaddedBytes(3 * n * k * 2) : 0) +
           (padded ? Arena::PaddedBytes(n * PaddedK(k) * 2) : 0);
  }
  return Arena::PaddedBytes(NumPanels(n) * kPanel * PackedDepth(dtype, k) * DTypeBytes(dtype));
}

LinearWeight PackLinear(const Context& ctx, const std::vector<TensorView>& parts, bool transposed,
                        const PartDone& done) {
  FD_CHECK(!parts.empty(), "a weight needs at least one part");
  const DType dtype = parts[0].dtype;
  const int64_t k = parts[0].dim(transposed ? 0 : 1);
  int64_t n = 0;
  for (const TensorView& part : parts) {
    FD_CHECK_EQ(part.rank(), 2);
    FD_CHECK(part.dtype == dtype, "parts of one weight have one type");
    FD_CHECK_EQ(part.dim(transposed ? 0 : 1), k);
    n += part.dim(transposed ? 1 : 0);
  }
  LinearWeight weight = NewWeight(ctx, dtype, n, k);
  const bool bf16 = dtype == DType::kBFloat16;
  if (OnCuda(ctx)) {
    int64_t row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (bf16) {
        UploadPart<uint16_t>(ctx, weight, row, parts[i], transposed);
      } else {
        UploadPart<float>(ctx, weight, row, parts[i], transposed);
      }
      row += parts[i].dim(transposed ? 1 : 0);
      if (done) done(i);
    }
    FinishCuda(ctx, &weight);
    return weight;
  }
  int64_t first = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const TensorView& part = parts[i];
    const int64_t rows = part.dim(transposed ? 1 : 0);
    const int64_t row_stride = transposed ? 1 : part.row_stride,
                  column_stride = transposed ? part.row_stride : 1;
    // Chunks begin at multiples of a panel where the part does, so that whole panels take the fast path.
    ctx.threads->ParallelFor(NumPanels(rows), 4, [&](int64_t begin, int64_t end) {
      const int64_t from = begin * kPanel, count = std::min(end * kPanel, rows) - from;
      if (bf16) {
        cpu::PackBFloat16(weight.data.view().As<uint16_t>(), first + from,
                          part.As<uint16_t>() + from * row_stride, count, weight.k, row_stride,
                          column_stride);
      } else {
        cpu::PackFloat32(weight.data.view().As<float>(), first + from, part.As<float>() + from * row_stride,
                         count, weight.k, row_stride, column_stride);
      }
    });
    first += rows;
    if (done) done(i);
  }
  return weight;
}

Shape PanelsShape(DType dtype, int64_t n, int64_t k) {
  if (dtype == DType::kBFloat16) return {NumPanels(n), (k + 1) / 2, 2 * kPanel};
  return {NumPanels(n), k, kPanel};
}

Tensor RowsOfPanels(const Context& ctx, const Tensor& panels, int64_t k, int64_t first, int64_t rows) {
  const TensorView& from = panels;
  Tensor out(from.dtype, Device{}, {rows, k});
  FD_CHECK(first >= 0 && first + rows <= from.dim(0) * kPanel && k <= from.dim(1) * from.dim(2) / kPanel);
  ctx.threads->ParallelFor(rows, 64, [&](int64_t begin, int64_t end) {
    if (from.dtype == DType::kBFloat16) {
      cpu::UnpackBFloat16(out.view().As<uint16_t>() + begin * k, from.As<uint16_t>(), first + begin,
                          end - begin, k);
    } else {
      cpu::UnpackFloat32(out.view().As<float>() + begin * k, from.As<float>(), first + begin, end - begin, k);
    }
  });
  return out;
}

LinearWeight LinearOfPanels(const Context& ctx, const Tensor& panels, int64_t n, int64_t k) {
  const TensorView& data = panels;
  CheckAct(data, "panels");
  FD_CHECK(data.shape == PanelsShape(data.dtype, n, k), data.shape.ToString());
  const bool bf16 = data.dtype == DType::kBFloat16;
  if (!OnCuda(ctx)) {
    FD_CHECK_EQ(reinterpret_cast<uintptr_t>(data.data) % 64, 0u);
    LinearWeight weight;
    weight.kind = bf16 ? WeightKind::kBFloat16 : WeightKind::kFloat32;
    weight.n = n;
    weight.k = k;
    weight.data = panels;
    return weight;
  }
  LinearWeight weight = NewWeight(ctx, data.dtype, n, k);
  const int64_t step = std::max<int64_t>(1, kUnpackedBytes / (k * DTypeBytes(data.dtype)));
  for (int64_t row = 0; row < n; row += step) {
    const Tensor rows = RowsOfPanels(ctx, panels, k, row, std::min(step, n - row));
    if (bf16) {
      UploadPart<uint16_t>(ctx, weight, row, rows, false);
    } else {
      UploadPart<float>(ctx, weight, row, rows, false);
    }
  }
  FinishCuda(ctx, &weight);
  return weight;
}

LinearWeight LinearOfTable(const Context& ctx, const Tensor& table) {
  const TensorView& rows = table.view();
  if (!OnCuda(ctx)) return PackLinear(ctx, {rows});
  FD_CHECK(rows.rank() == 2 && rows.IsContiguous());
  CheckAct(rows, "table");
  cuda::PrepareLinear(ctx.stream);
  LinearWeight weight;
  weight.kind = rows.dtype == DType::kBFloat16 ? WeightKind::kBFloat16 : WeightKind::kFloat32;
  weight.n = rows.dim(0);
  weight.k = rows.dim(1);
  weight.data = table;
  return weight;
}

int64_t LinearOfTableBytes(const Context& ctx, DType dtype, int64_t n, int64_t k) {
  return OnCuda(ctx) ? 0 : LinearWeightBytes(ctx, dtype, n, k);
}

LinearWeight RandomLinear(const Context& ctx, DType dtype, const std::vector<RandomRows>& parts, int64_t k,
                          float scale, const QuantScheme& scheme) {
  if (!OnCuda(ctx)) {
    std::vector<Tensor> made;
    std::vector<TensorView> views;
    for (const RandomRows& part : parts) {
      made.emplace_back(dtype, ctx.device, Shape{part.rows, k});
      FillRandom(ctx, made.back(), part.key, 0, scale);
      views.push_back(made.back());
    }
    return scheme.bits != 0 ? QuantizeLinear(ctx, views, false, scheme) : PackLinear(ctx, views);
  }
  if (scheme.bits != 0) return RandomQuantized(ctx, parts, k, scale, scheme);
  int64_t n = 0;
  for (const RandomRows& part : parts) n += part.rows;
  LinearWeight weight = NewWeight(ctx, dtype, n, k);
  int64_t row = 0;
  for (const RandomRows& part : parts) {
    FillRandom(ctx, weight.data.view().Rows(row, part.rows), part.key, 0, scale);
    row += part.rows;
  }
  FinishCuda(ctx, &weight);
  return weight;
}

LinearCpuTask LinearCpuPlan(const LinearWeight& weight, DType in) {
  using Input = LinearCpuTask::Input;
  if (IsQuantized(weight.kind)) {
    const cpu::QuantKernels& quant = cpu::GetQuantKernels();
    const bool eight = weight.kind == WeightKind::kInt8;
    LinearCpuTask plan;
    plan.group_size = weight.group_size;
    plan.input = in == DType::kBFloat16 ? Input::kInt8 : Input::kAsIs;
    plan.run_quantized = in == DType::kBFloat16 ? (eight ? quant.run8 : quant.run4)
                                                : (eight ? quant.run8_f32 : quant.run4_f32);
    return plan;
  }
  const cpu::LinearKernels& kernels = cpu::GetLinearKernels();
  if (weight.kind == WeightKind::kFloat32)
    return {kernels.f32_f32, nullptr, in == DType::kBFloat16 ? Input::kFloat32 : Input::kAsIs};
  if (in == DType::kFloat32) return {kernels.f32_bf16};
  if (kernels.bf16_bf16 != nullptr) return {kernels.bf16_bf16};
  return {kernels.f32_bf16, nullptr, Input::kFloat32};
}

TensorView LinearCpuInput(const Context& ctx, const LinearCpuTask& plan, const TensorView& in) {
  if (plan.input == LinearCpuTask::Input::kAsIs) return in;
  const int64_t k = in.dim(1);
  if (plan.input == LinearCpuTask::Input::kInt8) {
    const int64_t row_bytes = cpu::QuantRowBytes(k, plan.group_size);
    const TensorView rows = ctx.workspace->Take(DType::kUInt8, {in.dim(0), row_bytes});
    ctx.threads->ParallelFor(in.dim(0), std::max<int64_t>(1, 32768 / k), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        cpu::GetQuantKernels().quantize_row(rows.As<uint8_t>() + r * row_bytes,
                                            in.As<BFloat16>() + r * in.row_stride, k, plan.group_size);
      }
    });
    return rows;
  }
  const TensorView wide = ctx.workspace->Take(DType::kFloat32, in.shape);
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(k, 1));
  ctx.threads->ParallelFor(in.dim(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      cpu::GetLinearKernels().widen(wide.As<float>() + r * k, in.As<uint16_t>() + r * in.row_stride, k);
    }
  });
  return wide;
}

void RunLinearCpuBlock(const LinearCpuTask& plan, const LinearWeight& weight, const TensorView& out,
                       const TensorView& in, const TensorView& bias, const LinearCpuBlock& block) {
  const int64_t in_row_bytes = in.row_stride * DTypeBytes(in.dtype);
  const int64_t out_row_bytes = out.row_stride * DTypeBytes(out.dtype);
  const void* in_rows[cpu::kMaxBlockRows];
  void* out_rows[cpu::kMaxBlockRows];
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t row = block.in_rows != nullptr ? block.in_rows[r] : block.first_in_row + r;
    in_rows[r] = static_cast<const char*>(in.data) + row * in_row_bytes;
    out_rows[r] = static_cast<char*>(out.data) + (block.first_out_row + r) * out_row_bytes;
  }
  cpu::LinearBlock call;
  call.m = block.rows;
  call.in_rows = in_rows;
  call.out_rows = out_rows;
  call.out_bf16 = out.dtype == DType::kBFloat16;
  call.weight = weight.data.view().data;
  call.n = weight.n;
  call.k = weight.k;
  call.first_panel = block.first_panel;
  call.num_panels = block.num_panels;
  call.bias = bias.data;
  call.bias_bf16 = bias.dtype == DType::kBFloat16;
  if (plan.run_quantized == nullptr) return plan.run(call);
  plan.run_quantized({call, weight.scales.view().As<BFloat16>(), weight.group_size});
}

std::vector<int64_t> LinearRowClasses(const Context& ctx, int64_t most) {
  std::vector<int64_t> classes;
  if (!OnCuda(ctx)) return classes;
  for (int64_t m = 1; m <= most; m = cuda::LinearRowClass(m) + 1)
    classes.push_back(std::min(cuda::LinearRowClass(m), most));
  return classes;
}

void Linear(const Context& ctx, const TensorView& out, const TensorView& in, const LinearWeight& weight,
            const TensorView& bias) {
  FD_CHECK(in.rank() == 2 && out.rank() == 2, in.shape.ToString(), " -> ", out.shape.ToString());
  FD_CHECK(in.dtype == DType::kFloat32 || in.dtype == DType::kBFloat16, DTypeName(in.dtype));
  FD_CHECK(out.dtype == DType::kFloat32 || out.dtype == in.dtype, DTypeName(out.dtype));
  const int64_t m = in.dim(0);
  FD_CHECK_EQ(out.dim(0), m);
  FD_CHECK_EQ(in.dim(1), weight.k);
  FD_CHECK_EQ(out.dim(1), weight.n);
  const bool has_bias = bias.data != nullptr;
  if (has_bias) {
    FD_CHECK_EQ(bias.NumElements(), weight.n);
    FD_CHECK(bias.dtype == DType::kFloat32 || bias.dtype == DType::kBFloat16, DTypeName(bias.dtype));
  }
  if (m == 0 || weight.n == 0) return;
  if (OnCuda(ctx)) return LinearCuda(ctx, out, in, weight, bias);

  const LinearCpuTask plan = LinearCpuPlan(weight, in.dtype);
  const int64_t mark = ctx.workspace->Mark();
  const TensorView rows = LinearCpuInput(ctx, plan, in);
  const int64_t row_blocks = (m + cpu::kMaxBlockRows - 1) / cpu::kMaxBlockRows;
  // Balanced blocks: 130 rows are 65 + 65.
  const int64_t block_rows = (m + row_blocks - 1) / row_blocks;
  const PanelCut cut = CutPanels(weight.n, block_rows, ctx.threads->num_threads());
  const int64_t cuts = cut.tasks();
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      LinearCpuBlock block;
      block.first_in_row = block.first_out_row = task / cuts * block_rows;
      block.rows = std::min(block_rows, m - block.first_in_row);
      block.first_panel = cut.first(task % cuts);
      block.num_panels = cut.count(task % cuts);
      if (block.rows > 0) RunLinearCpuBlock(plan, weight, out, rows, bias, block);
    }
  };
  const int64_t tasks = cuts * row_blocks;
  if (m * weight.n * weight.k < kMinParallelWork) {
    run(0, tasks);
  } else {
    ctx.threads->ParallelFor(tasks, 1, run);
  }
  ctx.workspace->Release(mark);
}

void LinearSwiGlu(const Context& ctx, const TensorView& out, const TensorView& in,
                  const LinearWeight& gate_up) {
  FD_CHECK(in.rank() == 2 && out.rank() == 2, in.shape.ToString(), " -> ", out.shape.ToString());
  FD_CHECK_EQ(in.dim(1), gate_up.k);
  FD_CHECK_EQ(2 * out.dim(1), gate_up.n);
  FD_CHECK(out.dim(0) == in.dim(0) && out.dtype == in.dtype);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in, &gate_up.data.view()});
    if (IsQuantized(gate_up.kind)) {
      cuda::QuantLinear args = CudaQuantArgs(out, in, gate_up);
      args.linear.invariant = ctx.batch_invariant;
      if (cuda::LinearQuantSwiGlu(args, ctx.stream)) return;
    } else if (cuda::LinearFewSwiGlu(CudaLinearArgs(out, in, gate_up.data), ctx.stream)) {
      return;
    }
  }
  const int64_t mark = ctx.workspace->Mark();
  const TensorView product = ctx.workspace->Take(in.dtype, {in.dim(0), gate_up.n});
  Linear(ctx, product, in, gate_up);
  SwiGlu(ctx, out, product);
  ctx.workspace->Release(mark);
}

}  // namespace fd::ops
