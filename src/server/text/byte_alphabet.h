// GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies are written.
#pragma once

#include <string>
#include <string_view>

namespace fd {

// The bytes that `text` stands for; false, with `bytes` unspecified, when a character is outside the
// alphabet.
bool AlphabetToBytes(std::string_view text, std::string& bytes);

}  // namespace fd
