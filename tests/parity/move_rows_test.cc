#include "tests/parity/moves.h"

namespace fd {
namespace {

using namespace parity;

class MoveRows : public testing::TestWithParam<int> {
 protected:
  MoveRows() : cpu_(GetParam()) {}
  Cpu cpu_;
};

TEST_P(MoveRows, Chains) { CheckChains(cpu_.ctx); }
TEST_P(MoveRows, RowSizes) { CheckRowSizes(cpu_.ctx); }
TEST_P(MoveRows, LongLists) { CheckLongLists(cpu_.ctx); }
TEST_P(MoveRows, StepsInFlight) { CheckStepsInFlight(cpu_.ctx); }
TEST_P(MoveRows, WithoutHostRows) { CheckWithoutHostRows(cpu_.ctx); }

INSTANTIATE_TEST_SUITE_P(Threads, MoveRows, testing::Values(1, 3));

}  // namespace
}  // namespace fd
