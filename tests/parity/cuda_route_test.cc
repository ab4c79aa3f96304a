#include "compute/kernels/reference/linear.h"
#include "compute/ops/moe.h"
#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

TEST(CudaRouteSoftmax, MatchesReference) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  std::mt19937 rng(5);
  for (int64_t experts : {1, 2, 6, 8, 64, 129, 1024}) {
    for (int64_t top_k : {1, 2, 3, 6, 40}) {
      if (top_k > experts) continue;
      for (int64_t tokens : {1, 67}) {
        const Tensor logits = Random(rng, DType::kFloat32, {tokens, experts}, 3.0f),
                     bias = Random(rng, DType::kFloat32, {experts}, 0.2f);
        const Tensor device_logits = ToDevice(gpu, logits), device_bias = ToDevice(gpu, bias);
        for (bool with_bias : {false, true}) {
          for (bool round : {false, true}) {
            SCOPED_TRACE(testing::Message() << experts << " experts, " << top_k << " of them, " << tokens);
            Tensor ids = PoisonedOnDevice(gpu, DType::kInt32, {tokens, top_k}),
                   weights = PoisonedOnDevice(gpu, DType::kFloat32, {tokens, top_k});
            Tensor want_ids(DType::kInt32, Device{}, {tokens, top_k}),
                want(DType::kFloat32, Device{}, {tokens, top_k});
            ops::RouteSoftmax(gpu.ctx, ids, weights, device_logits,
                              with_bias ? device_bias.view() : TensorView{}, 1e-12f, round);
            reference::RouteSoftmax(want_ids, want, logits, with_bias ? bias.view() : TensorView{}, 1e-12f,
                                    round);
            ExpectSameBits(ToHost(gpu, ids), want_ids);
            ExpectClose(ToHost(gpu, weights), want, 1e-6, round ? 8e-3 : 1e-5);
          }
        }
      }
    }
  }
}

TEST(CudaRouteSoftmax, TiesTakeTheLowerIndexAndBrokenLogitsGiveValidIds) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  const int64_t experts = 70, top_k = 4;
  Tensor logits(DType::kFloat32, Device{}, {5, experts});
  for (int64_t e = 0; e < experts; ++e) {
    float* at = logits.view().As<float>() + e;
    at[0] = 1.0f;
    at[experts] = e == 2 ? NAN : 0.0f;
    at[2 * experts] = e == 4 ? INFINITY : -INFINITY;
    at[3 * experts] = NAN;
    at[4 * experts] = -INFINITY;
  }
  Tensor ids = PoisonedOnDevice(gpu, DType::kInt32, {5, top_k}),
         weights = PoisonedOnDevice(gpu, DType::kFloat32, {5, top_k});
  ops::RouteSoftmax(gpu.ctx, ids, weights, ToDevice(gpu, logits), {}, 1e-12f, false);
  const Tensor found = ToHost(gpu, ids), found_weights = ToHost(gpu, weights);
  for (int32_t j = 0; j < top_k; ++j) {
    EXPECT_EQ(found.view().As<int32_t>()[j], j);
    EXPECT_FLOAT_EQ(found_weights.view().As<float>()[j], 0.25f);
  }
  for (int64_t t = 0; t < 5; ++t) {
    int32_t before = -1;
    for (int64_t j = 0; j < top_k; ++j) {
      const int32_t id = found.view().As<int32_t>()[t * top_k + j];
      EXPECT_TRUE(before < id && id < experts) << "row " << t << ": " << id << " after " << before;
      before = id;
    }
  }
}

}  // namespace
}  // namespace fd
