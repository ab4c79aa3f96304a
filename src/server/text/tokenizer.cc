#include "server/text/tokenizer.h"

#include "base/files.h"
#include "base/strings.h"
#include "server/text/bpe_tokenizer.h"
#include "server/text/sentencepiece_tokenizer.h"
#include "server/text/tokenizer_config.h"

namespace fd {

StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  // The names that ERNIE, Llama and others use for a SentencePiece model.
  constexpr const char* kSentencePieceNames[] = {"tokenizer.model", "spm.model", "ernie_token_100k.model"};
  constexpr const char* kJsonName = "tokenizer.json";
  if (!IsDirectory(model_dir))
    return NotFound(
        StrCat(model_dir, " is not a folder; a model folder holds tokenizer.model or tokenizer.json"));
  FD_ASSIGN_OR_RETURN(TokenizerConfig config, ReadTokenizerConfig(model_dir));
  const std::string json_path = JoinPath(model_dir, kJsonName);
  const bool has_json = FileExists(json_path);
  for (const char* name : kSentencePieceNames) {
    const std::string path = JoinPath(model_dir, name);
    if (!FileExists(path)) continue;
    FD_ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(path));
    const std::string_view bytes(reinterpret_cast<const char*>(file->data()),
                                 static_cast<size_t>(file->size_bytes()));
    StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeSentencePieceTokenizer(bytes, config);
    if (tokenizer.ok()) return tokenizer;
    // Some checkpoints ship another kind of file under this name beside their tokenizer.json.
    if (!has_json) return tokenizer.status().WithContext(path);
    break;
  }
  if (!has_json) {
    return NotFound(StrCat(model_dir, " has no tokenizer: looked for ", kSentencePieceNames[0], ", ",
                           kSentencePieceNames[1], ", ", kSentencePieceNames[2], " and ", kJsonName));
  }
  FD_ASSIGN_OR_RETURN(const std::shared_ptr<MappedFile> file, MappedFile::Open(json_path));
  const std::string_view text(reinterpret_cast<const char*>(file->data()),
                              static_cast<size_t>(file->size_bytes()));
  StatusOr<std::unique_ptr<Tokenizer>> tokenizer = MakeBpeTokenizer(text, std::move(config));
  if (!tokenizer.ok()) return tokenizer.status().WithContext(json_path);
  return tokenizer;
}

}  // namespace fd
