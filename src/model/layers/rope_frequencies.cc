#include "model/layers/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fd {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

// theta^(2i / dim) in float32.
float Power(float theta, int64_t i, int64_t dim) {
  return std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
}

float DynamicTheta(const ModelConfig& c, int64_t served_tokens) {
  const double trained = static_cast<double>(c.max_position_embeddings), factor = c.rope_scaling.factor;
  const double tokens = std::max(static_cast<double>(served_tokens), trained);
  const double dim = static_cast<double>(c.head_dim);
  const double growth = factor * tokens / trained - (factor - 1.0);
  return static_cast<float>(static_cast<double>(c.rope_theta) * std::pow(growth, dim / (dim - 2.0)));
}

// The index of the frequency that turns `rotations` times within the original length.
double YarnIndex(double rotations, const ModelConfig& c) {
  const double tokens = static_cast<double>(c.rope_scaling.original_max_position_embeddings);
  return static_cast<double>(c.head_dim) * std::log(tokens / (rotations * kTwoPi)) /
         (2.0 * std::log(static_cast<double>(c.rope_theta)));
}

double YarnMagnitude(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void Yarn(const ModelConfig& c, RopeFrequencies& out) {
  const RopeScaling& s = c.rope_scaling;
  double low = YarnIndex(s.beta_fast, c), high = YarnIndex(s.beta_slow, c);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(c.head_dim - 1));
  if (low == high) high += 0.001;
  for (int64_t i = 0; i < c.head_dim / 2; ++i) {
    const float power = Power(c.rope_theta, i, c.head_dim);
    const float stays = 1.0f / power, divided = 1.0f / (static_cast<float>(s.factor) * power);
    const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float share = 1.0f - std::clamp(ramp, 0.0f, 1.0f);
    out.inv_freq.push_back(divided * (1.0f - share) + stays * share);
  }
  const bool scales = s.mscale != 0.0 && s.mscale_all_dim != 0.0;
  const double magnitude = scales
                               ? YarnMagnitude(s.factor, s.mscale) / YarnMagnitude(s.factor, s.mscale_all_dim)
                               : YarnMagnitude(s.factor, 1.0);
  out.attention_factor = static_cast<float>(s.attention_factor.value_or(magnitude));
}

void LongRope(const ModelConfig& c, int64_t served_tokens, RopeFrequencies& out) {
  const RopeScaling& s = c.rope_scaling;
  const std::vector<double>& divisors =
      served_tokens > s.original_max_position_embeddings ? s.long_factor : s.short_factor;
  for (int64_t i = 0; i < c.head_dim / 2; ++i) {
    const float divisor = static_cast<float>(divisors[static_cast<size_t>(i)]);
    out.inv_freq.push_back(1.0f / (divisor * Power(c.rope_theta, i, c.head_dim)));
  }
  double magnitude = 1.0;
  if (s.factor > 1.0) {
    const double original = static_cast<double>(s.original_max_position_embeddings);
    magnitude = std::sqrt(1.0 + std::log(s.factor) / std::log(original));
  }
  out.attention_factor = static_cast<float>(s.attention_factor.value_or(magnitude));
}

float Llama3Frequency(float stored, const RopeScaling& s) {
  const float original = static_cast<float>(s.original_max_position_embeddings);
  const float factor = static_cast<float>(s.factor), low = static_cast<float>(s.low_freq_factor);
  const float wave = static_cast<float>(kTwoPi) / stored;
  const float longest = static_cast<float>(static_cast<double>(s.original_max_position_embeddings) /
                                           s.low_freq_factor),
              shortest = static_cast<float>(static_cast<double>(s.original_max_position_embeddings) /
                                            s.high_freq_factor);
  if (wave > longest) return stored / factor;
  if (wave < shortest) return stored;
  const float share = (original / wave - low) / static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  return (1.0f - share) * stored / factor + share * stored;
}

}  // namespace

float InverseFrequency(float theta, int64_t i, int64_t dim) { return 1.0f / Power(theta, i, dim); }

RopeFrequencies TextRopeFrequencies(const ModelConfig& c) {
  const int64_t served_tokens = c.rope_tokens > 0 ? c.rope_tokens : MaxContextTokens(c);
  RopeFrequencies out;
  if (c.rope_scaling.kind == RopeKind::kYarn) {
    Yarn(c, out);
    return out;
  }
  if (c.rope_scaling.kind == RopeKind::kLongRope) {
    LongRope(c, served_tokens, out);
    return out;
  }
  const float theta =
      c.rope_scaling.kind == RopeKind::kDynamic ? DynamicTheta(c, served_tokens) : c.rope_theta;
  for (int64_t i = 0; i < c.head_dim / 2; ++i) {
    const float stored = InverseFrequency(theta, i, c.head_dim);
    switch (c.rope_scaling.kind) {
      case RopeKind::kLinear:
        out.inv_freq.push_back(stored / static_cast<float>(c.rope_scaling.factor));
        break;
      case RopeKind::kLlama3:
        out.inv_freq.push_back(Llama3Frequency(stored, c.rope_scaling));
        break;
      default:
        out.inv_freq.push_back(stored);
    }
  }
  return out;
}

}  // namespace fd
