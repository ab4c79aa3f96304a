#include "compute/kernels/cuda/not_built.h"
#include "compute/kernels/cuda/sample.h"

namespace fd::cuda {

int64_t SampleScratchBytes(int64_t) { NotBuilt(__func__); }
void Sample(const SampleArgs&, int32_t*, float*, void*) { NotBuilt(__func__); }
void SampleProbs(const SampleArgs&, float*, int64_t, void*) { NotBuilt(__func__); }
int64_t TopLogprobsScratchBytes(int64_t, int64_t) { NotBuilt(__func__); }
void TopLogprobs(const TopLogprobsArgs&, void*) { NotBuilt(__func__); }
void TokenLogprobs(const TokenLogprobsArgs&, void*) { NotBuilt(__func__); }
void ScoreTokens(const ScoreTokensArgs&, void*) { NotBuilt(__func__); }
void TokenRanks(const TokenRanksArgs&, void*) { NotBuilt(__func__); }
void ClearSeen(const SeenTable&, int64_t, void*) { NotBuilt(__func__); }
void EnterSeen(const SeenTable&, int64_t, const int32_t*, int64_t, const int32_t*, int64_t, void*) {
  NotBuilt(__func__);
}
void CountTokens(const SeenTable&, const int32_t*, const int32_t*, const int32_t*, int64_t, void*) {
  NotBuilt(__func__);
}
void ApplyPenalties(const PenaltyArgs&, void*) { NotBuilt(__func__); }

}  // namespace fd::cuda
