#include "cpu_flags.h"

#include <gtest/gtest.h>

#include "base/strings.h"

namespace fd {
namespace {

// The error's text, or "" when the flags are right.
std::string Parse(const std::vector<std::string>& args, CpuFlags* values) {
  FlagSet flags("test", "Test.");
  AddCpuFlags(flags, values);
  const StatusOr<bool> parsed = flags.Parse(args);
  return parsed.ok() ? std::string() : parsed.status().message();
}

TEST(CpuFlags, Affinity) {
  const CpuTopology here = ReadCpuTopology();
  const int first = here.cpus.front().cpu;
  CpuFlags values;
  EXPECT_EQ(Parse({"--cpu-affinity", StrCat(first), "--threads", "1"}, &values), "");
  EXPECT_EQ(values.cpus, (std::vector<int>{first}));
  EXPECT_EQ(TopologyFor(values).cpus.size(), 1u);
  EXPECT_EQ(PlacementFor(values, TopologyFor(values), true).cpus, (std::vector<int>{first}));
  EXPECT_EQ(PlacementFor(values, TopologyFor(values), false).cpus, (std::vector<int>{first}));

  EXPECT_EQ(Parse({"--cpu-affinity", "none"}, &values), "");
  EXPECT_FALSE(values.pin);
  EXPECT_TRUE(values.cpus.empty());
  EXPECT_TRUE(PlacementFor(values, here, true).cpus.empty());

  CpuFlags automatic;
  EXPECT_EQ(Parse({"--cpu-affinity", "auto"}, &automatic), "");
  EXPECT_TRUE(automatic.pin);
  EXPECT_TRUE(PlacementFor(automatic, here, false).cpus.empty());  // a GPU computes

  const std::string malformed = Parse({"--cpu-affinity", "0-"}, &values);
  EXPECT_NE(malformed.find("--cpu-affinity 0-: '0-' is neither"), std::string::npos) << malformed;
  EXPECT_NE(malformed.find("auto and none"), std::string::npos);
  const std::string absent = Parse({"--cpu-affinity", "60000"}, &values);
  EXPECT_NE(absent.find("CPU 60000 is not among"), std::string::npos) << absent;
  EXPECT_NE(Parse({"--cpu-affinity", ""}, &values), "");
}

TEST(CpuFlags, Isa) {
  const cpu::Isa before = cpu::CurrentIsa();
  CpuFlags values;
  EXPECT_EQ(Parse({"--cpu-isa", "avx2"}, &values), "");
  EXPECT_EQ(values.isa, cpu::Isa::kAvx2);
  ApplyCpuFlags(values, true);
  EXPECT_EQ(cpu::CurrentIsa(), cpu::Isa::kAvx2);
  EXPECT_EQ(Parse({"--cpu-isa", "auto"}, &values), "");
  EXPECT_FALSE(values.isa.has_value());
  const std::string unknown = Parse({"--cpu-isa", "sse4"}, &values);
  EXPECT_NE(unknown.find(StrCat("--cpu-isa sse4: no such level; this CPU has up to ",
                                cpu::IsaName(cpu::BestIsa()), ", so allowed are auto, avx2")),
            std::string::npos)
      << unknown;
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) {
    EXPECT_NE(Parse({"--cpu-isa", "avx512_bf16"}, &values).find("no more than"), std::string::npos);
  }
  cpu::SetIsa(before);
}

}  // namespace
}  // namespace fd
