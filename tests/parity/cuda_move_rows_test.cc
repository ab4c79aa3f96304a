#include "compute/kernels/cuda/move_rows.h"

#include "tests/parity/cuda_parity.h"
#include "tests/parity/moves.h"

namespace fd {
namespace {

using namespace parity;

// CheckLongLists counts around these.
static_assert(cuda::RowMoves::kMaxMoves == 380 && cuda::RowMoves::kMaxPairs == 64);

TEST(CudaMoveRows, Chains) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  CheckChains(gpu.ctx);
}

TEST(CudaMoveRows, RowSizes) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  CheckRowSizes(gpu.ctx);
}

TEST(CudaMoveRows, LongLists) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  CheckLongLists(gpu.ctx);
}

TEST(CudaMoveRows, StepsInFlight) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  CheckStepsInFlight(gpu.ctx);
}

TEST(CudaMoveRows, WithoutHostRows) {
  FD_SKIP_WITHOUT_GPU();
  CudaContext gpu;
  CheckWithoutHostRows(gpu.ctx);
}

}  // namespace
}  // namespace fd
