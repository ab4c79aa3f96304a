// Every vector of tests/golden/tokenizers, made by sentencepiece and the tokenizers library.
#include <gtest/gtest.h>

#include <cstdio>

#include "base/json.h"
#include "base/strings.h"
#include "base/utf8.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"

namespace fd {
namespace {

using Ids = std::vector<int32_t>;

Ids IdsOf(const Json& json) {
  Ids ids;
  for (const Json& id : json.as_array()) ids.push_back(static_cast<int32_t>(id.as_int()));
  return ids;
}

std::string FromHex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string BytePiece(char byte) {
  char piece[8];
  std::snprintf(piece, sizeof(piece), "<0x%02X>", static_cast<unsigned>(static_cast<uint8_t>(byte)));
  return piece;
}

class GoldenTokenizer : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string folder = StrCat("tests/golden/tokenizers/", GetParam());
    auto loaded = Tokenizer::Load(folder);
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    tokenizer_ = std::move(loaded).value();
    auto vectors = ReadJsonFile(folder + "/vectors.json");
    ASSERT_TRUE(vectors.ok()) << vectors.status().message();
    vectors_ = std::move(vectors).value();
  }
  const JsonArray& Rows(const char* name) const {
    static const JsonArray kNone;
    const Json* rows = vectors_.Find(name);
    return rows == nullptr ? kNone : rows->as_array();
  }
  // The tokenizers library's ByteFallback replaces every byte of a run of byte tokens that is not UTF-8 as a
  // whole.
  std::string DecodeAsByteFallback(const Ids& ids, bool skip_special) const {
    std::string out, run;
    auto flush = [&] {
      if (IsValidUtf8(run)) {
        out += run;
      } else {
        for (size_t i = 0; i < run.size(); ++i) AppendUtf8(out, kReplacementCharacter);
      }
      run.clear();
    };
    for (int32_t id : ids) {
      const std::string bytes = tokenizer_->TokenBytes(id, skip_special);
      const bool is_byte = bytes.size() == 1 && tokenizer_->TokenId(BytePiece(bytes[0])) == id;
      if (is_byte) {
        run += bytes;
      } else if (!bytes.empty()) {
        flush();
        out += bytes;
      }
    }
    flush();
    return out.starts_with(' ') ? out.substr(1) : out;
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  Json vectors_;
};

TEST_P(GoldenTokenizer, Encodes) {
  ASSERT_GT(Rows("vectors").size(), 200u);
  for (const Json& row : Rows("vectors")) {
    const std::string& text = row.Find("text")->as_string();
    EXPECT_EQ(tokenizer_->Encode(text, true), IdsOf(*row.Find("ids"))) << text;
    const Json* with_bos = row.Find("ids_with_bos");
    EXPECT_EQ(tokenizer_->EncodeWithBos(text), IdsOf(with_bos == nullptr ? *row.Find("ids") : *with_bos))
        << text;
  }
}

TEST_P(GoldenTokenizer, Decodes) {
  for (const Json& row : Rows("vectors")) {
    const Ids ids = IdsOf(*row.Find("ids"));
    const Json* decoded = row.Find("decoded");
    const std::string& text = (decoded->is_null() ? row.Find("text") : decoded)->as_string();
    EXPECT_EQ(tokenizer_->Decode(ids, false), text);
    const Json* skip = row.Find("skip");
    EXPECT_EQ(tokenizer_->Decode(ids, true), skip == nullptr ? text : skip->as_string());
  }
}

TEST_P(GoldenTokenizer, DecodesAnyIds) {
  ASSERT_EQ(Rows("decode_only").size(), 40u);
  const bool byte_fallback_rule = std::string(GetParam()) == "llama2_metaspace";
  for (const Json& row : Rows("decode_only")) {
    const Ids ids = IdsOf(*row.Find("ids"));
    for (bool skip : {false, true}) {
      const std::string& expected = row.Find(skip ? "skip" : "decoded")->as_string();
      const std::string text =
          byte_fallback_rule ? DecodeAsByteFallback(ids, skip) : tokenizer_->Decode(ids, skip);
      EXPECT_EQ(text, expected);
      if (expected.find("\xEF\xBF\xBD") == std::string::npos) {
        EXPECT_EQ(tokenizer_->Decode(ids, skip), expected);
      }
    }
  }
}

TEST_P(GoldenTokenizer, ReadsInvalidBytesAsReplacement) {
  for (const Json& row : Rows("invalid_bytes")) {
    EXPECT_EQ(tokenizer_->Encode(FromHex(row.Find("hex")->as_string()), true), IdsOf(*row.Find("ids")));
    EXPECT_EQ(tokenizer_->Encode(row.Find("text_after_replace")->as_string(), true), IdsOf(*row.Find("ids")));
  }
}

TEST_P(GoldenTokenizer, Streams) {
  ASSERT_GT(Rows("streaming").size(), 20u);
  for (const Json& row : Rows("streaming")) {
    const Ids ids = IdsOf(*row.Find("ids"));
    Detokenizer detokenizer(tokenizer_.get(), true);
    std::string all;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string piece = detokenizer.Push(ids[i]);
      EXPECT_EQ(piece, row.Find("pieces")->as_array()[i].as_string()) << "piece " << i;
      all += piece;
    }
    const std::string rest = detokenizer.Flush();
    EXPECT_EQ(rest, row.Find("flush")->as_string());
    EXPECT_EQ(all + rest, tokenizer_->Decode(ids, true));
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer,
                         testing::Values("ernie_spm", "qwen2_bbpe", "llama3_bbpe", "llama2_metaspace"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace fd
