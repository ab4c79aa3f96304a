// The distribution of ops/sample for one row, in double precision, by sorting.
#pragma once

#include <vector>

namespace fd::reference {

std::vector<double> SampleProbs(const std::vector<float>& logits, double temperature, int top_k, double top_p,
                                double min_p);

}  // namespace fd::reference
