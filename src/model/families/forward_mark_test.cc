// ForwardBatch::on_mark: where in a forward it is called, and that it changes nothing.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "model/families/logits_for_test.h"
#include "model/model.h"

namespace fd {
namespace {

TEST(ForwardMark, IsCalledOnceAfterItsShareOfTheLayers) {
  Host host;
  for (const std::string family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    SCOPED_TRACE(family);
    auto model = LoadModel(host.ctx, "tests/golden/models/" + family, {});
    ASSERT_TRUE(model.ok()) << model.status().message();
    const std::vector<float> without = LogitsOf(host, **model);
    const int64_t layers = (*model)->config().num_layers;
    ASSERT_GE(layers, 2);
    for (int64_t after = 1; after <= layers; ++after) {
      int64_t seen = 0, marks = 0, marked_at = -1;
      (*model)->probe = [&](const std::string& name, const TensorView&) {
        seen += name.starts_with("layer");
      };
      const double share = (static_cast<double>(after) + 0.5) / static_cast<double>(layers);
      const std::vector<float> with = LogitsOf(host, **model, [&](ForwardBatch& batch) {
        batch.mark_share = share;
        batch.on_mark = [&] {
          ++marks;
          marked_at = seen;
        };
      });
      EXPECT_EQ(with, without);
      // A share beyond the last layer: the step is nearly over, nobody needs to be told.
      EXPECT_EQ(marks, after < layers ? 1 : 0) << after;
      EXPECT_EQ(marked_at, after < layers ? after : -1);
    }
  }
}

}  // namespace
}  // namespace fd
