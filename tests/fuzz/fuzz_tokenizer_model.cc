// Any bytes as tokenizer.json (when they begin with a brace) or as tokenizer.model: an error, or a tokenizer
// whose ids lie within its vocabulary and whose decoded texts are UTF-8.
#include <cstdlib>
#include <string>

#include "base/utf8.h"
#include "server/text/bpe_tokenizer.h"
#include "server/text/sentencepiece_tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view file(reinterpret_cast<const char*>(data), size);
  const bool json = size > 0 && data[0] == '{';
  auto tokenizer = json ? fd::MakeBpeTokenizer(file, {}) : fd::MakeSentencePieceTokenizer(file, {});
  if (!tokenizer.ok()) return 0;
  const fd::Tokenizer& t = **tokenizer;
  const std::string text =
      "Hello  world 12345 \xE4\xBD\xA0\xE5\xA5\xBD <s><|im_end|></s>\n\xF0\x9F\x98\x80\xFF e\xCC\x81" +
      std::string(file.substr(0, 200));
  for (bool allow_special : {false, true}) {
    const std::vector<int32_t> ids = t.Encode(text, allow_special);
    for (int32_t id : ids) {
      if (id < 0 || id >= t.vocab_size()) std::abort();
    }
    if (!fd::IsValidUtf8(t.Decode(ids, false)) || !fd::IsValidUtf8(t.Decode(ids, true))) std::abort();
  }
  for (int32_t id : t.EncodeWithBos(text)) {
    if (id < 0 || id >= t.vocab_size()) std::abort();
  }
  return 0;
}
