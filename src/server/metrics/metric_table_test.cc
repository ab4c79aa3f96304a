#include "server/metrics/metric_table.h"

#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <string>

namespace fd {
namespace {

TEST(MetricTable, RowsAreWellFormed) {
  std::map<Series, const MetricRow*> of_series;
  std::set<std::string> names;
  std::string last;
  for (const MetricRow& row : MetricTable()) {
    const std::string name = row.name;
    if (name != last) {
      EXPECT_TRUE(names.insert(name).second) << name << ": its rows do not follow each other";
      EXPECT_FALSE(std::string(row.help).empty()) << name;
      EXPECT_TRUE(std::regex_match(name, std::regex("(fastdeploy:|vllm:|http_|process_)[a-z0-9_]+"))) << name;
    } else {
      EXPECT_FALSE(std::string(row.label).empty()) << name << ": two rows without a label";
    }
    last = name;
    EXPECT_EQ(row.kind == MetricKind::kCounter,
              name.ends_with("_total") && row.kind != MetricKind::kHistogram)
        << name;
    EXPECT_EQ(row.kind == MetricKind::kHistogram, row.buckets != BucketList::kNone) << name;
    const auto [same, is_new] = of_series.try_emplace(row.series, &row);
    EXPECT_EQ(same->second->kind, row.kind) << name;
    EXPECT_EQ(same->second->buckets, row.buckets) << name;
  }
  EXPECT_EQ(of_series.size(), static_cast<size_t>(Series::kCount))
      << "something is counted and shown nowhere";
}

TEST(MetricTable, BucketsAscend) {
  for (const MetricRow& row : MetricTable()) {
    if (row.kind != MetricKind::kHistogram) continue;
    double last = 0;
    for (double bound : BucketsOf(row.buckets)) {
      EXPECT_GT(bound, last) << row.name;
      last = bound;
    }
    EXPECT_GT(last, 0) << row.name;
  }
}

// FastDeploy's own lists: where they end, a request with pictures has not begun.
TEST(MetricTable, NoBucketOfFastDeployIsMissing) {
  const std::map<BucketList, std::vector<double>> theirs = {
      {BucketList::kFirstToken, {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1}},
      {BucketList::kPerToken, {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1}},
      {BucketList::kLong,
       {.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}},
      {BucketList::kTokens, {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000}},
      {BucketList::kHttp,
       {.01, .025, .05, .1, .25, .5, .75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60}}};
  for (const auto& [list, bounds] : theirs) {
    const auto ours = BucketsOf(list);
    const std::set<double> have(ours.begin(), ours.end());
    for (double bound : bounds) EXPECT_TRUE(have.contains(bound)) << bound;
    EXPECT_GE(*have.rbegin(), bounds.back());
  }
}

}  // namespace
}  // namespace fd
