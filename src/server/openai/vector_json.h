// Vectors of floats as JSON. Pure functions.
#pragma once

#include <span>
#include <string>

namespace fd {

// [0.25,-1e-05]: the shortest numbers that read back as the same float32. Finite values only.
void AppendFloatArray(std::string& out, std::span<const float> values);
// "AACAPg==": the bytes of little-endian float32.
void AppendBase64(std::string& out, std::span<const float> values);

}  // namespace fd
