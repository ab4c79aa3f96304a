#include "model/config/rope_config.h"

#include <algorithm>
#include <string_view>

#include "base/strings.h"
#include "model/config/model_config.h"

namespace fd {
namespace {

struct KindName {
  std::string_view name;
  RopeKind kind;
};
// The first name of a kind is the one that messages show.
constexpr KindName kKinds[] = {
    {"default", RopeKind::kDefault}, {"mrope", RopeKind::kDefault}, {"linear", RopeKind::kLinear},
    {"dynamic", RopeKind::kDynamic}, {"yarn", RopeKind::kYarn},     {"longrope", RopeKind::kLongRope},
    {"su", RopeKind::kLongRope},     {"llama3", RopeKind::kLlama3},
};
constexpr double kMaxFactor = 1e6;
constexpr double kMaxTheta = 1e12;
// Positions beyond are not whole numbers in float32.
constexpr int64_t kMaxTokens = int64_t{1} << 24;

// What the object `r` calls its kind; rope_type comes before its older name `type`.
RopeKind ReadKind(ConfigReader& r) {
  const char* key = r.Has("rope_type") ? "rope_type" : "type";
  const std::string name = r.String(key, "default");
  for (const KindName& k : kKinds) {
    if (k.name == name) return k.kind;
  }
  r.Fail(key, "default, linear, dynamic, yarn, longrope, llama3");
  return RopeKind::kDefault;
}

std::vector<double> ReadDivisors(ConfigReader& r, const char* key, int64_t count) {
  const Json* list = r.Find(key);
  std::vector<double> out;
  bool good = list != nullptr && list->is_array() && static_cast<int64_t>(list->as_array().size()) == count;
  for (int64_t i = 0; good && i < count; ++i) {
    const Json& n = list->as_array()[static_cast<size_t>(i)];
    good = n.is_number() && n.as_double() >= 1e-6 && n.as_double() <= kMaxFactor;
    if (good) out.push_back(n.as_double());
  }
  if (!good) r.Fail(key, StrCat("a list of head_dim / 2 = ", count, " numbers from 1e-6 to 1e6"));
  return out;
}

void ReadYarn(ConfigReader& r, RopeScaling& s) {
  // As in transformers, 0 stands for the default.
  const auto or_default = [&](const char* key, double value) {
    const double given = r.Number(key, 0.0, kMaxFactor, 0.0);
    return given == 0.0 ? value : given;
  };
  s.beta_fast = or_default("beta_fast", 32.0);
  s.beta_slow = or_default("beta_slow", 1.0);
  if (s.beta_fast < s.beta_slow) r.Fail("beta_fast", StrCat("at least beta_slow, ", s.beta_slow));
  s.mscale = r.Number("mscale", 0.0, 1e3, 0.0);
  s.mscale_all_dim = r.Number("mscale_all_dim", 0.0, 1e3, 0.0);
  s.truncate = r.Bool("truncate", true);
}

RopeScaling ReadScaling(ConfigReader& text, ConfigReader& r, bool by_flag, const ModelConfig& c) {
  RopeScaling s;
  s.kind = ReadKind(r);
  if (s.kind == RopeKind::kDefault) return s;
  const int64_t half = c.head_dim / 2;
  const bool keeps_original =
      s.kind == RopeKind::kYarn || s.kind == RopeKind::kLongRope || s.kind == RopeKind::kLlama3;
  if (keeps_original) {
    // Some models have it beside rope_scaling; there it comes first, but for a flag.
    constexpr const char* kKey = "original_max_position_embeddings";
    ConfigReader& from = text.Has(kKey) && !(by_flag && r.Has(kKey)) ? text : r;
    s.original_max_position_embeddings = from.Int(kKey, {2, kMaxTokens}, c.max_position_embeddings);
  }
  const bool may_be_derived = s.kind == RopeKind::kYarn || s.kind == RopeKind::kLongRope;
  if (r.Has("factor") || !may_be_derived) {
    s.factor = r.Number("factor", 1.0, kMaxFactor);
  } else {
    s.factor = static_cast<double>(c.max_position_embeddings) /
               static_cast<double>(s.original_max_position_embeddings);
  }
  if (may_be_derived && r.Has("attention_factor"))
    s.attention_factor = r.Number("attention_factor", 1e-3, 1e3);
  switch (s.kind) {
    case RopeKind::kDynamic:
      if (half < 2) r.Fail(r.Has("rope_type") ? "rope_type" : "type", "another kind with head_dim 2");
      break;
    case RopeKind::kYarn:
      ReadYarn(r, s);
      break;
    case RopeKind::kLongRope:
      s.short_factor = ReadDivisors(r, "short_factor", half);
      s.long_factor = ReadDivisors(r, "long_factor", half);
      break;
    case RopeKind::kLlama3:
      s.low_freq_factor = r.Number("low_freq_factor", 1e-6, kMaxFactor);
      s.high_freq_factor = r.Number("high_freq_factor", 1e-6, kMaxFactor);
      if (s.high_freq_factor <= s.low_freq_factor)
        r.Fail("high_freq_factor", StrCat("more than low_freq_factor, ", s.low_freq_factor));
      break;
    default:
      break;
  }
  return s;
}

// Which frequencies follow h, w and t.
std::vector<int64_t> ReadSections(ConfigReader& text, ConfigReader& parameters, ConfigReader& scaling,
                                  int64_t half) {
  ConfigReader* source = parameters.Has("mrope_section") ? &parameters : &scaling;
  std::vector<int64_t> section = source->Ints("mrope_section", {0, 512}, 3, 3);
  const int64_t temporal = text.Int("freq_allocation", {0, 512}, -1);
  if (section.empty() && temporal >= 0 && temporal <= half && (half - temporal) % 2 == 0) {
    section = {(half - temporal) / 2, (half - temporal) / 2, temporal};
  } else if (section.empty() && temporal >= 0) {
    text.Fail("freq_allocation", StrCat("an even rest of head_dim / 2 = ", half, " frequencies"));
  } else if (section.empty() && half == 64) {
    section = {22, 22, 20};  // what every published model has
  } else if (section.empty()) {
    parameters.FailMissing("mrope_section", "three integers [h, w, t] that add up to head_dim / 2");
  } else if (section[0] != section[1] || section[0] + section[1] + section[2] != half) {
    source->Fail("mrope_section", StrCat("[h, w, t] with h = w and a sum of head_dim / 2 = ", half));
  } else if (temporal >= 0 && temporal != section[2]) {
    text.Fail("freq_allocation", StrCat("the third number of mrope_section, ", section[2]));
  }
  return section;
}

}  // namespace

const char* RopeKindName(RopeKind kind) {
  for (const KindName& k : kKinds) {
    if (k.kind == kind) return k.name.data();
  }
  return "";
}

void ReadRope(ConfigReader& text, const RopeOverrides& overrides, ModelConfig& c) {
  ConfigReader parameters = text.Child("rope_parameters");
  ConfigReader scaling = text.Child("rope_scaling");
  Status flag_status;
  const Json given = overrides.scaling ? Json(*overrides.scaling) : Json();
  ConfigReader flag(overrides.scaling ? &given : nullptr, "--rope-scaling ", &flag_status);

  // rope_parameters in both styles says default where rope_scaling is the one that was written by hand.
  const RopeKind of_parameters = ReadKind(parameters), of_scaling = ReadKind(scaling);
  if (of_parameters != RopeKind::kDefault && of_scaling != RopeKind::kDefault && of_parameters != of_scaling)
    scaling.Fail(scaling.Has("rope_type") ? "rope_type" : "type", "the kind of rope_parameters or none");
  ConfigReader& source = overrides.scaling ? flag : of_scaling != RopeKind::kDefault ? scaling : parameters;
  ConfigReader& theta = flag.Has("rope_theta")         ? flag
                        : parameters.Has("rope_theta") ? parameters
                        : text.Has("rope_theta")       ? text
                                                       : scaling;
  c.rope_theta = static_cast<float>(overrides.theta ? *overrides.theta
                                                    : theta.Number("rope_theta", 1.0, kMaxTheta, 500000.0));
  c.rope_scaling = ReadScaling(text, source, overrides.scaling.has_value(), c);
  if (c.rope_scaling.kind == RopeKind::kYarn && c.rope_theta <= 1.0f)
    theta.Fail("rope_theta", "a number above 1 with yarn");
  if (!flag_status.ok()) text.FailStatus(InvalidArgument(flag_status.message(), "--rope-scaling"));
  if (c.family == "ernie4_5_vl_moe") {
    c.mrope_section =
        ReadSections(text, parameters, flag.Has("mrope_section") ? flag : scaling, c.head_dim / 2);
  }
}

int64_t MaxContextTokens(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto times = [&](int64_t tokens) {
    return static_cast<int64_t>(
        std::min(static_cast<double>(tokens) * s.factor, static_cast<double>(kMaxTokens)));
  };
  switch (s.kind) {
    case RopeKind::kLinear:
    case RopeKind::kDynamic:
      return times(c.max_position_embeddings);
    case RopeKind::kYarn:
      return std::max(c.max_position_embeddings, times(s.original_max_position_embeddings));
    default:
      return c.max_position_embeddings;
  }
}

std::string MaxContextReason(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  if (MaxContextTokens(c) == c.max_position_embeddings) return "max_position_embeddings";
  const int64_t before =
      s.kind == RopeKind::kYarn ? s.original_max_position_embeddings : c.max_position_embeddings;
  return StrCat("rope_scaling ", RopeKindName(s.kind), ", ", s.factor, " times ", before);
}

}  // namespace fd
