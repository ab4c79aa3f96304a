#include "compute/ops/rows.h"

#include <algorithm>
#include <numeric>

#include "compute/kernels/reference/rows.h"
#include "compute/ops/attention.h"
#include "compute/ops/elementwise.h"
#include "compute/ops/norm.h"
#include "compute/ops/rope.h"
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

// fn(act, rows, n, padding): contiguous and strided, odd sizes and wide ones.
template <typename Fn>
void ForAll(const Fn& fn) {
  for (DType act : kActs) {
    for (int64_t rows : {1, 5, 67}) {
      for (int64_t n : {1, 3, 8, 33, 192, 250, 1280, 2560, 9000}) {
        if (rows == 67 && n > 2560) continue;
        for (int64_t padding : {0, 3, 8}) {
          SCOPED_TRACE(testing::Message() << DTypeName(act) << " " << rows << " x " << n << " + " << padding);
          fn(act, rows, n, padding);
        }
      }
    }
  }
}

// [rows, n] inside rows of n + padding elements, all poisoned; Check also looks at what lies around.
struct Output {
  Output(CudaContext& gpu, DType act, int64_t rows, int64_t n, int64_t padding)
      : gpu(gpu), whole(PoisonedOnDevice(gpu, act, {rows, n + padding})), begin(padding / 2), n(n) {}
  TensorView view() const { return whole.view().Columns(begin, n); }
  void Check(const TensorView& expected, double absolute, double relative) const {
    const Tensor host = ToHost(gpu, whole);
    ExpectClose(host.view().Columns(begin, n), expected, absolute, relative);
    for (int64_t r = 0; r < host.view().dim(0); ++r) {
      for (int64_t c = 0; c < host.view().dim(1); ++c) {
        if (c >= begin && c < begin + n) continue;
        ASSERT_TRUE(std::isnan(Get(host, r * host.view().row_stride + c)))
            << "wrote outside: " << r << " " << c;
      }
    }
  }
  CudaContext& gpu;
  Tensor whole;
  int64_t begin, n;
};

// The same values in rows of n + padding elements on the device.
struct Input {
  Input(CudaContext& gpu, const Tensor& host, int64_t padding)
      : whole(PoisonedOnDevice(gpu, host.view().dtype, {host.view().dim(0), host.view().dim(1) + padding})),
        view(whole.view().Columns(padding / 2, host.view().dim(1))) {
    ops::Copy(gpu.ctx, view, host);
    cuda::Synchronize(gpu.stream);
  }
  Tensor whole;
  TensorView view;
};

TEST(CudaNorm, RmsNormWithAndWithoutResidual) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(3);
  ForAll([&](DType act, int64_t rows, int64_t n, int64_t padding) {
    const Tensor in = Random(rng, act, {rows, n}), weight = Random(rng, act, {n}),
                 residual = Random(rng, act, {rows, n}, 3.0f);
    const Tensor w = ToDevice(gpu, weight);
    const Input x(gpu, in, padding), r(gpu, residual, padding);
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    reference::RmsNorm(expected, in, weight, 1e-5f, act);
    // The rounding before the weight may fall either way too.
    const double relative = 2 * RelativeTolerance(act);
    Output out(gpu, act, rows, n, padding);
    ops::RmsNorm(gpu.ctx, out.view(), x.view, w, 1e-5f);
    out.Check(expected, 1e-6, relative);

    Tensor sum(act, Device{}, {rows, n});
    reference::Add(sum, residual, in);
    reference::RmsNorm(expected, sum, weight, 1e-5f, act);
    Output fused(gpu, act, rows, n, padding);
    ops::AddRmsNorm(gpu.ctx, fused.view(), r.view, x.view, w, 1e-5f);
    fused.Check(expected, 1e-6, relative);
    ExpectSameBits(ToHost(gpu, r.view), sum);
    // In place.
    ops::RmsNorm(gpu.ctx, r.view, r.view, w, 1e-5f);
    ExpectSameBits(ToHost(gpu, r.view), ToHost(gpu, fused.view()));
  });
}

TEST(CudaNorm, LayerNorm) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(4);
  ForAll([&](DType act, int64_t rows, int64_t n, int64_t padding) {
    const Tensor in = Random(rng, act, {rows, n}), weight = Random(rng, act, {n}),
                 bias = Random(rng, act, {n});
    const Input x(gpu, in, padding);
    const Tensor w = ToDevice(gpu, weight), b = ToDevice(gpu, bias);
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    reference::LayerNorm(expected, in, weight, bias, 1e-6f);
    Output out(gpu, act, rows, n, padding);
    ops::LayerNorm(gpu.ctx, out.view(), x.view, w, b, 1e-6f);
    out.Check(expected, act == DType::kFloat32 ? 5e-6 : 1e-5, RelativeTolerance(act));
    ops::LayerNorm(gpu.ctx, x.view, x.view, w, b, 1e-6f);
    ExpectSameBits(ToHost(gpu, x.view), ToHost(gpu, out.view()));
  });
}

TEST(CudaElementwise, AllFunctions) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(5);
  ForAll([&](DType act, int64_t rows, int64_t n, int64_t padding) {
    const Tensor gate_up = Random(rng, act, {rows, 2 * n}, 4.0f), a = Random(rng, act, {rows, n}, 4.0f),
                 b = Random(rng, act, {rows, n}, 4.0f);
    const Input gu(gpu, gate_up, padding), x(gpu, a, padding), y(gpu, b, padding);
    const double relative = act == DType::kFloat32 ? 4e-6 : 2 * RelativeTolerance(act);
    Tensor expected(DType::kFloat32, Device{}, {rows, n});
    Output swiglu(gpu, act, rows, n, padding), quick(gpu, act, rows, n, padding),
        gelu(gpu, act, rows, n, padding);
    reference::SwiGlu(expected, gate_up, act);
    ops::SwiGlu(gpu.ctx, swiglu.view(), gu.view);
    swiglu.Check(expected, 1e-6, relative);
    reference::QuickGelu(expected, a);
    ops::QuickGelu(gpu.ctx, quick.view(), x.view);
    quick.Check(expected, 1e-6, relative);
    reference::Gelu(expected, a);
    ops::Gelu(gpu.ctx, gelu.view(), x.view);
    gelu.Check(expected, 1e-6, relative);
    Tensor sum(act, Device{}, {rows, n});
    reference::Add(sum, a, b);
    ops::Add(gpu.ctx, x.view, x.view, y.view);
    ExpectSameBits(ToHost(gpu, x.view), sum);
  });
}

TEST(CudaElementwise, ExtremeValues) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const std::vector<float> values = {0.0f,  -0.0f,  1e-38f, -1e-38f, 88.0f,    -88.0f,    104.0f, -104.0f,
                                     1e30f, -1e30f, 3e38f,  -3e38f,  INFINITY, -INFINITY, NAN};
  const int64_t n = static_cast<int64_t>(values.size());
  for (DType act : kActs) {
    Tensor in(act, Device{}, {1, n}), ones(act, Device{}, {1, 2 * n});
    for (int64_t i = 0; i < n; ++i) {
      Set(in, i, values[static_cast<size_t>(i)]);
      Set(ones, i, values[static_cast<size_t>(i)]);
      Set(ones, n + i, 1.0f);
    }
    const Tensor x = ToDevice(gpu, in), gu = ToDevice(gpu, ones);
    Tensor expected(act, Device{}, {1, n});
    Tensor out = PoisonedOnDevice(gpu, act, {1, n});
    const double relative = 2 * RelativeTolerance(act);
    reference::SwiGlu(expected, ones, act);
    ops::SwiGlu(gpu.ctx, out, gu);
    ExpectClose(ToHost(gpu, out), expected, 1e-35, relative);
    reference::QuickGelu(expected, in);
    ops::QuickGelu(gpu.ctx, out, x);
    ExpectClose(ToHost(gpu, out), expected, 1e-35, relative);
    reference::Gelu(expected, in);
    ops::Gelu(gpu.ctx, out, x);
    ExpectClose(ToHost(gpu, out), expected, 1e-35, relative);
  }
}

TEST(CudaElementwise, NormalizePixels) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f}, std[] = {0.26862954f, 0.2613026f, 0.2757771f};
  for (DType act : kActs) {
    for (int64_t side : {1, 2, 5, 14, 28}) {
      const int64_t n = 3 * side * side;
      Tensor in(DType::kUInt8, Device{}, {9, n}), expected(DType::kFloat32, Device{}, {9, n});
      for (int64_t i = 0; i < 9 * n; ++i) in.view().As<uint8_t>()[i] = static_cast<uint8_t>(i * 37 + i / 7);
      reference::NormalizePixels(expected, in, mean, std);
      Output out(gpu, act, 9, n, 4);
      ops::NormalizePixels(gpu.ctx, out.view(), ToDevice(gpu, in), mean, std);
      out.Check(expected, 1e-6, RelativeTolerance(act));
    }
  }
}

TEST(CudaRope, CosSinOfThreeAxes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const int64_t tokens = 370, half = 12;
  Tensor positions(DType::kInt32, Device{}, {3, tokens}), freq(DType::kFloat32, Device{}, {half}),
      axis(DType::kInt32, Device{}, {half}), expected(DType::kFloat32, Device{}, {tokens, 2, half});
  for (int64_t i = 0; i < 3 * tokens; ++i)
    positions.view().As<int32_t>()[i] = static_cast<int32_t>(i * i * 3 % 131072);
  for (int64_t i = 0; i < half; ++i) {
    freq.view().As<float>()[i] = std::pow(500000.0f, -static_cast<float>(i) / static_cast<float>(half));
    axis.view().As<int32_t>()[i] = i < 8 ? 1 + i % 2 : 0;
  }
  for (float scale : {1.0f, 1.3465736f}) {
    reference::RopeCosSin(expected, positions, freq, axis, scale);
    Tensor found = PoisonedOnDevice(gpu, DType::kFloat32, {tokens, 2, half});
    ops::RopeCosSin(gpu.ctx, found, ToDevice(gpu, positions), ToDevice(gpu, freq), ToDevice(gpu, axis),
                    scale);
    ExpectClose(ToHost(gpu, found), expected, 1e-6, 0);
  }
}

TEST(CudaRope, BothStyles) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(8);
  for (DType act : kActs) {
    for (int64_t head_dim : {2, 6, 16, 64, 80, 128, 130}) {
      for (int64_t heads : {1, 3, 20}) {
        for (bool interleaved : {true, false}) {
          SCOPED_TRACE(testing::Message() << DTypeName(act) << " " << head_dim << " " << interleaved);
          const int64_t tokens = 9;
          const Tensor x = Random(rng, act, {tokens, heads * head_dim}),
                       cos_sin = Random(rng, DType::kFloat32, {tokens, 2, head_dim / 2});
          Tensor expected(DType::kFloat32, Device{}, {tokens, heads, head_dim});
          reference::ApplyRope(expected, x.view().Reshape({tokens, heads, head_dim}), cos_sin, interleaved);
          const Input in(gpu, x, 6);
          ops::ApplyRope(gpu.ctx, in.view.Reshape({tokens, heads, head_dim}), ToDevice(gpu, cos_sin),
                         interleaved ? ops::RopeStyle::kInterleaved : ops::RopeStyle::kHalfSplit);
          const Tensor host = ToHost(gpu, in.whole);
          ExpectClose(host.view().Columns(3, heads * head_dim),
                      expected.view().Reshape({tokens, heads * head_dim}), 1e-6, RelativeTolerance(act));
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t c : {int64_t{2}, 3 + heads * head_dim})
              ASSERT_TRUE(std::isnan(Get(host, t * host.view().row_stride + c)));
        }
      }
    }
  }
}

// The bits of the CPU's kernels: the same products are rounded. Aligned rows, as a projection leaves them,
// and rows that begin anywhere; from a few tokens to many, where a thread takes several heads.
TEST(CudaRope, WithTheWriteToPages) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(9);
  struct Case {
    int64_t tokens, heads, kv_heads, head_dim, pad;
  };
  for (const Case& c :
       {Case{1, 20, 4, 128, 0}, Case{37, 16, 2, 128, 0}, Case{130, 4, 2, 64, 0}, Case{37, 5, 1, 128, 8},
        Case{37, 5, 1, 128, 3}, Case{21, 3, 3, 80, 0}, Case{21, 6, 3, 24, 0}, Case{9, 2, 1, 6, 1},
        Case{9, 1, 1, 2, 0}, Case{9, 2, 2, 130, 0}, Case{5000, 5, 2, 128, 0}, Case{5001, 3, 2, 128, 5}}) {
    const int64_t pages = (c.tokens + 63) / 64 + 2, q_width = c.heads * c.head_dim,
                  kv_width = c.kv_heads * c.head_dim, width = q_width + 2 * kv_width + 2 * c.pad;
    std::vector<int32_t> order(static_cast<size_t>(pages * 64));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng);
    order.resize(static_cast<size_t>(c.tokens));
    for (size_t t = 2; t < order.size(); t += 7) order[t] = t % 2 == 0 ? -1 : -1000000;  // padding
    const Tensor slots = Ints(order, {c.tokens}), device_slots = ToDevice(gpu, slots),
                 cos_sin = Random(rng, DType::kFloat32, {c.tokens, 2, c.head_dim / 2}),
                 device_cos_sin = ToDevice(gpu, cos_sin);
    for (DType act : kActs) {
      for (ops::RopeStyle style : {ops::RopeStyle::kInterleaved, ops::RopeStyle::kHalfSplit}) {
        SCOPED_TRACE(testing::Message()
                     << DTypeName(act) << " " << c.tokens << " x " << c.heads << "/" << c.kv_heads << " x "
                     << c.head_dim << " pad " << c.pad << " style " << static_cast<int>(style));
        const Tensor host = Random(rng, act, {c.tokens, width}), device = ToDevice(gpu, host);
        auto part = [&](const TensorView& rows, int64_t begin, int64_t count) {
          return rows.Columns(c.pad + begin * c.head_dim, count * c.head_dim)
              .Reshape({c.tokens, count, c.head_dim});
        };
        const Shape shape = {pages, c.kv_heads, 64, c.head_dim};
        const Tensor k_pages = PoisonedOnDevice(gpu, act, shape), v_pages = PoisonedOnDevice(gpu, act, shape);
        ops::RopeAndWriteKv(gpu.ctx, part(device, 0, c.heads), k_pages, v_pages,
                            part(device, c.heads, c.kv_heads), part(device, c.heads + c.kv_heads, c.kv_heads),
                            device_cos_sin, device_slots, style);
        const Tensor before = ToDevice(gpu, host);
        ops::ApplyRope(gpu.ctx, part(before, 0, c.heads), device_cos_sin, style);

        Tensor k_expected(act, Device{}, shape), v_expected(act, Device{}, shape);
        std::memset(k_expected.view().data, 0xff, static_cast<size_t>(k_expected.size_bytes()));
        std::memset(v_expected.view().data, 0xff, static_cast<size_t>(v_expected.size_bytes()));
        const Tensor keys(act, Device{}, {c.tokens, c.kv_heads, c.head_dim});
        ops::Copy(cpu.ctx, keys.view().Reshape({c.tokens, kv_width}),
                  host.view().Columns(c.pad + q_width, kv_width));
        ops::ApplyRope(cpu.ctx, part(host, 0, c.heads), cos_sin, style);
        ops::ApplyRope(cpu.ctx, keys, cos_sin, style);
        WritePages(k_expected, keys, slots);
        WritePages(v_expected, part(host, c.heads + c.kv_heads, c.kv_heads), slots);
        ExpectSameBits(ToHost(gpu, k_pages), k_expected);
        ExpectSameBits(ToHost(gpu, v_pages), v_expected);
        // q alone is rotated where it lies, with and without the write.
        ExpectSameBits(ToHost(gpu, device), host);
        ExpectSameBits(ToHost(gpu, before), host);
      }
    }
  }
}

// Pages of bytes: the reference's bytes and scales, and q as without the write.
TEST(CudaRope, WithTheWriteOfBytes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  Cpu cpu;
  std::mt19937 rng(12);
  struct Case {
    int64_t tokens, heads, kv_heads, head_dim;
  };
  for (const Case& c : {Case{1, 20, 4, 128}, Case{37, 16, 2, 128}, Case{130, 4, 2, 64}, Case{21, 3, 3, 80},
                        Case{9, 2, 1, 6}, Case{9, 1, 1, 2}, Case{9, 2, 2, 130}, Case{700, 1, 1, 256}}) {
    const int64_t pages = (c.tokens + 63) / 64 + 2, width = (c.heads + 2 * c.kv_heads) * c.head_dim;
    std::vector<int32_t> order(static_cast<size_t>(pages * 64));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng);
    order.resize(static_cast<size_t>(c.tokens));
    for (size_t t = 7; t < order.size(); t += 7) order[t] = -1;  // padding
    const Tensor slots = Ints(order, {c.tokens}), device_slots = ToDevice(gpu, slots),
                 cos_sin = Random(rng, DType::kFloat32, {c.tokens, 2, c.head_dim / 2}),
                 device_cos_sin = ToDevice(gpu, cos_sin);
    for (DType act : kActs) {
      for (DType bytes : {DType::kFloat8E4M3, DType::kInt8}) {
        for (ops::RopeStyle style : {ops::RopeStyle::kInterleaved, ops::RopeStyle::kHalfSplit}) {
          SCOPED_TRACE(testing::Message()
                       << DTypeName(act) << " " << DTypeName(bytes) << " " << c.tokens << " x " << c.heads
                       << "/" << c.kv_heads << " x " << c.head_dim << " style " << static_cast<int>(style));
          const Tensor host = Random(rng, act, {c.tokens, width});
          auto part = [&](const TensorView& rows, int64_t begin, int64_t count) {
            return rows.Columns(begin * c.head_dim, count * c.head_dim)
                .Reshape({c.tokens, count, c.head_dim});
          };
          // Values of the first tokens: zeros, not finite, one large value beside small ones.
          for (int64_t i = 0; i < c.head_dim; ++i) {
            for (int64_t t = 0; t < std::min<int64_t>(3, c.tokens); ++t) {
              const float special[] = {0.0f, i == 0 ? INFINITY : 1.0f, i == 1 ? -5000.0f : 0.01f};
              Set(part(host, c.heads + c.kv_heads, c.kv_heads).Rows(t, 1), i, special[t]);
            }
          }
          const Tensor device = ToDevice(gpu, host);
          const Shape shape = ops::PagesShape(bytes, pages, c.kv_heads, c.head_dim);
          Tensor k_expected(bytes, Device{}, shape), v_expected(bytes, Device{}, shape);
          for (const Tensor* t : {&k_expected, &v_expected}) {
            std::memset(t->view().data, 0xa5, static_cast<size_t>(t->size_bytes()));
          }
          const Tensor k_pages = ToDevice(gpu, k_expected), v_pages = ToDevice(gpu, v_expected);
          ops::RopeAndWriteKv(
              gpu.ctx, part(device, 0, c.heads), k_pages, v_pages, part(device, c.heads, c.kv_heads),
              part(device, c.heads + c.kv_heads, c.kv_heads), device_cos_sin, device_slots, style);
          ops::ApplyRope(cpu.ctx, part(host, 0, c.heads), cos_sin, style);
          const Tensor keys(act, Device{}, {c.tokens, c.kv_heads, c.head_dim});
          ops::Copy(cpu.ctx, keys.view().Reshape({c.tokens, c.kv_heads * c.head_dim}),
                    host.view().Columns(c.heads * c.head_dim, c.kv_heads * c.head_dim));
          ops::ApplyRope(cpu.ctx, keys, cos_sin, style);
          WriteBytePages(k_expected, keys, slots, false, false);
          WriteBytePages(v_expected, part(host, c.heads + c.kv_heads, c.kv_heads), slots, false, false);
          ExpectSameBits(ToHost(gpu, k_pages), k_expected);
          ExpectSameBits(ToHost(gpu, v_pages), v_expected);
          const Tensor rotated = ToHost(gpu, device);
          ExpectSameBits(part(rotated, 0, c.heads), part(host, 0, c.heads));
        }
      }
    }
  }
}

// A graph whose rows are all padding writes no page.
TEST(CudaRope, PaddingReplayedFromAGraph) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(10);
  const int64_t tokens = 8, heads = 4, kv_heads = 2, d = 64;
  const Tensor q = ToDevice(gpu, Random(rng, DType::kBFloat16, {tokens, heads, d})),
               k = ToDevice(gpu, Random(rng, DType::kBFloat16, {tokens, kv_heads, d})),
               cos_sin = ToDevice(gpu, Random(rng, DType::kFloat32, {tokens, 2, d / 2})),
               slots(DType::kInt32, kGpu, {tokens}),
               none = ToDevice(gpu, Ints({-1, -1, -1, -1, -1, -1, -1, -1}, {tokens}));
  const Tensor pages = PoisonedOnDevice(gpu, DType::kBFloat16, {2, kv_heads, 64, d}),
               other = PoisonedOnDevice(gpu, DType::kBFloat16, {2, kv_heads, 64, d});
  const auto run = [&] {
    ops::RopeAndWriteKv(gpu.ctx, q, pages, other, k, k, cos_sin, slots, ops::RopeStyle::kInterleaved);
  };
  ops::Copy(gpu.ctx, slots, none);
  run();  // loads the kernel
  cuda::BeginCapture(gpu.stream);
  run();
  void* graph = cuda::EndCapture(gpu.stream);
  cuda::LaunchGraph(graph, gpu.stream);
  for (float x : Values(ToHost(gpu, pages))) ASSERT_TRUE(std::isnan(x));
  for (float x : Values(ToHost(gpu, other))) ASSERT_TRUE(std::isnan(x));
  ops::Copy(gpu.ctx, slots, ToDevice(gpu, Ints({0, 1, 2, 3, 4, 5, 6, 70}, {tokens})));
  cuda::LaunchGraph(graph, gpu.stream);
  int64_t written = 0;
  for (float x : Values(ToHost(gpu, pages))) written += !std::isnan(x);
  EXPECT_EQ(written, tokens * kv_heads * d);
  cuda::DestroyGraph(graph);
}

}  // namespace
}  // namespace fd
