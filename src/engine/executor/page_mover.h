// The bytes of pages on the host, and pages on their way between the two places. Engine thread.
#pragma once

#include <cstdint>
#include <vector>

#include "compute/ops/move_rows.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

// What moving one page takes.
struct PageMoveMs {
  double in = 0;   // from the host to the device
  double out = 0;  // and back
};

class PageMover {
 public:
  // Allocates the host's pages, page-locked where the device is CUDA's: num_host_pages * KvBytesPerPage.
  // Keeps views of kv's tensors, of whose rows nothing is taken for granted but that row p belongs to page p.
  PageMover(const ops::Context& ctx, const KvStorage& kv, int64_t num_host_pages);

  // In this order, on ctx's stream.
  void Move(const ops::Context& ctx, const std::vector<PageMove>& moves);
  // The best mean of some pages in and out again; what lies in any page must not matter yet. Waits for the
  // device.
  PageMoveMs Measure(const ops::Context& ctx);

  int64_t host_bytes() const;

 private:
  std::vector<Tensor> host_;  // [num_host_pages, ...], one for each tensor of kv
  std::vector<ops::RowPair> pairs_;
  std::vector<ops::RowMove> moves_;  // of the step in hand
  int64_t measured_pages_ = 0;
};

}  // namespace fd
