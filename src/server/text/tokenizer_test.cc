// What the golden vectors do not show: spans, refusals, long texts, small parts.
#include "server/text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/files.h"
#include "base/strings.h"
#include "server/text/bpe_tokenizer.h"
#include "server/text/byte_alphabet.h"
#include "server/text/charsmap.h"
#include "server/text/nfc.h"
#include "server/text/prefix_matcher.h"
#include "server/text/proto_reader.h"
#include "server/text/sentencepiece_tokenizer.h"
#include "server/text/split_pattern.h"

namespace fd {
namespace {

using Ids = std::vector<int32_t>;
constexpr const char* kFolders[] = {"ernie_spm", "qwen2_bbpe", "llama3_bbpe", "llama2_metaspace"};

std::string Golden(const std::string& name) { return "tests/golden/tokenizers/" + name; }

std::unique_ptr<Tokenizer> LoadGolden(const std::string& name) {
  auto loaded = Tokenizer::Load(Golden(name));
  EXPECT_TRUE(loaded.ok()) << loaded.status().message();
  return std::move(loaded).value();
}

std::string ReadGolden(const std::string& path) { return ReadFile(Golden(path)).value(); }

TEST(TokenizerSpans, UserTextNeverBecomesAControlToken) {
  for (const char* folder : kFolders) {
    const auto t = LoadGolden(folder);
    for (int32_t id = 0; id < t->vocab_size(); ++id) {
      if (!t->IsSpecial(id)) continue;
      const std::string text = t->TokenBytes(id, false);
      EXPECT_EQ(t->Encode(text, true), Ids{id}) << text;
      for (int32_t got : t->Encode("x" + text + " y", false))
        EXPECT_FALSE(t->IsSpecial(got)) << folder << text;
      // In any cut over two spans it is text too, allowed or not.
      for (size_t cut = 1; cut < text.size(); ++cut) {
        const std::string_view all = text;
        for (bool first : {false, true}) {
          const Ids ids = t->EncodeSpans({{all.substr(0, cut), first}, {all.substr(cut), true}});
          EXPECT_EQ(ids, t->Encode(text, false)) << folder << text << cut;
        }
      }
    }
  }
}

TEST(TokenizerSpans, SpansAreOneText) {
  const std::string text =
      "Hello world, \xE4\xBD\xA0\xE5\xA5\xBD\xEF\xBC\x81 12345 caf\x65\xCC\x81 don't  stop\n\nhere";
  for (const char* folder : kFolders) {
    const auto t = LoadGolden(folder);
    const Ids whole = t->Encode(text, false);
    for (size_t cut = 0; cut <= text.size(); ++cut) {  // also inside a character
      const std::string_view all = text;
      EXPECT_EQ(t->EncodeSpans({{all.substr(0, cut), false}, {all.substr(cut), false}}), whole)
          << folder << cut;
    }
  }
}

TEST(TokenizerSpans, ReservedUserDefinedPieceStaysText) {
  // "<think>" as an added token of several characters; user text spells it out in pieces.
  const auto t = LoadGolden("ernie_spm");
  const int32_t think = t->TokenId("<think>").value();
  EXPECT_FALSE(t->IsSpecial(think));
  EXPECT_EQ(t->Encode("<think>", true), Ids{think});
  EXPECT_GT(t->Encode("<think>", false).size(), 1u);
  EXPECT_EQ(t->Decode(t->Encode("<think>", false), true), "<think>");
}

TEST(Tokenizer, TheDemoModelLoads) {
  auto t = Tokenizer::Load("models/ernie-4.5-vl-tiny");
  ASSERT_TRUE(t.ok()) << t.status().message();
  EXPECT_EQ((*t)->TokenId("<|IMAGE_PLACEHOLDER|>"), 2560);
  EXPECT_EQ((*t)->bos_token(), "<s>");
  EXPECT_EQ((*t)->eos_token(), "</s>");
  EXPECT_EQ((*t)->vocab_size(), 2578);
  EXPECT_EQ((*t)->Decode((*t)->Encode("Hello, world 123", true), true), "Hello, world 123");
}

TEST(Tokenizer, UnknownIdsAndNamesGiveNothing) {
  for (const char* folder : kFolders) {
    const auto t = LoadGolden(folder);
    for (int64_t id : {int64_t{-1}, t->vocab_size(), int64_t{INT32_MAX}, int64_t{INT32_MIN}}) {
      EXPECT_EQ(t->TokenBytes(static_cast<int32_t>(id), false), "");
      EXPECT_FALSE(t->IsSpecial(static_cast<int32_t>(id)));
    }
    EXPECT_EQ(t->TokenId("no such token"), std::nullopt);
    EXPECT_EQ(t->TokenId(""), std::nullopt);
  }
  EXPECT_TRUE(
      LoadGolden("qwen2_bbpe")->TokenId("\xC4\xA0t").has_value());  // a space and "t" as the file spells it
  EXPECT_TRUE(LoadGolden("ernie_spm")->TokenId("<0x0A>").has_value());
}

TEST(Tokenizer, AMissingTokenizerNamesFolderAndFiles) {
  const std::string folder = testing::TempDir() + "fd_no_tokenizer";
  std::filesystem::create_directories(folder);
  const auto t = Tokenizer::Load(folder);
  ASSERT_FALSE(t.ok());
  for (const std::string& word : {folder, std::string("tokenizer.model"), std::string("tokenizer.json")}) {
    EXPECT_NE(t.status().message().find(word), std::string::npos) << t.status().message();
  }
  EXPECT_FALSE(Tokenizer::Load(folder + "/none").ok());
  std::ofstream(folder + "/tokenizer.model") << "not a model";
  const auto bad = Tokenizer::Load(folder);
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.status().message().find("tokenizer.model"), std::string::npos) << bad.status().message();
  std::filesystem::remove_all(folder);
}

// The text of tokenizer.json with one thing changed, and a word of the error that this must give.
TEST(TokenizerRefusals, JsonPartsAreRefusedByName) {
  struct Case {
    const char* folder;
    const char* from;
    const char* to;
    const char* word;
  };
  const Case cases[] = {
      {"qwen2_bbpe", "\"type\": \"NFC\"", "\"type\": \"NFKC\"", "NFKC"},
      {"qwen2_bbpe", "\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "Removed"},
      {"qwen2_bbpe", "\"type\": \"BPE\"", "\"type\": \"Unigram\"", "Unigram"},
      {"qwen2_bbpe", "\"dropout\": null", "\"dropout\": 0.1", "dropout"},
      {"qwen2_bbpe", "\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"",
       "end_of_word_suffix"},
      {"qwen2_bbpe", "\"single_word\": false", "\"single_word\": true", "single_word"},
      {"qwen2_bbpe", "\"Regex\": \"(?i", "\"Regex\": \"((?i", "offset"},
      {"llama3_bbpe", "TemplateProcessing", "BertProcessing", "BertProcessing"},
      {"llama2_metaspace", "\"type\": \"Prepend\"", "\"type\": \"Lowercase\"", "Lowercase"},
      {"llama2_metaspace", "\"type\": \"Strip\"", "\"type\": \"WordPiece\"", "WordPiece"},
      {"llama2_metaspace", "\"unk_token\": \"<unk>\"", "\"unk_token\": \"<what>\"", "<what>"},
  };
  for (const Case& c : cases) {
    std::string file = ReadGolden(StrCat(c.folder, "/tokenizer.json"));
    ASSERT_TRUE(MakeBpeTokenizer(file, {}).ok());
    const size_t at = file.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    file.replace(at, std::string(c.from).size(), c.to);
    const auto t = MakeBpeTokenizer(file, {});
    ASSERT_FALSE(t.ok()) << c.to;
    EXPECT_NE(t.status().message().find(c.word), std::string::npos) << t.status().message();
  }
}

TEST(TokenizerRefusals, CutFilesAreErrors) {
  const std::string json = ReadGolden("llama2_metaspace/tokenizer.json");
  for (size_t size = 0; size < json.size() - 2; size += 499)
    EXPECT_FALSE(MakeBpeTokenizer(json.substr(0, size), {}).ok());
  const std::string model = ReadGolden("ernie_spm/tokenizer.model");
  for (size_t size = 0; size < model.size() - 200; size += 97) {
    EXPECT_FALSE(MakeSentencePieceTokenizer(std::string_view(model).substr(0, size), {}).ok()) << size;
  }
}

TEST(TokenizerRefusals, TokenIdsHaveALimit) {
  TokenizerConfig config;
  EXPECT_FALSE(ParseAddedToken(ParseJson(R"({"content":"a"})").value(), 4'000'000'000, "here").ok());
  EXPECT_FALSE(ParseAddedToken(ParseJson(R"({"content":""})").value(), 1, "here").ok());
  EXPECT_FALSE(ParseAddedToken(ParseJson(R"({"content":"a","special":1})").value(), 1, "here").ok());
}

TEST(TokenizerSpeed, LongTextsAreNotQuadratic) {
  std::string marks = "a";
  for (int i = 0; i < 250'000; ++i) marks += "\xCC\x81\xCC\xA3";  // two combining classes, out of order
  const std::string texts[] = {std::string(1'000'000, 'a'), std::string(1'000'000, ' '), marks,
                               std::string(1'000'000, '<')};
  for (const char* folder : kFolders) {
    const auto t = LoadGolden(folder);
    for (const std::string& text : texts) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_GT(t->Encode(text, true).size(), 1000u);
      // About 0.1 s; quadratic would be an hour. The limit leaves room for sanitizers and a busy machine.
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30))
          << folder << text.substr(0, 4);
    }
  }
}

TEST(PrefixMatcher, FindsTheLongest) {
  const PrefixMatcher m({{"a", 1}, {"abc", 2}, {"ab", 3}, {"\xFFz", 4}, {"", 5}, {"a", 6}});
  EXPECT_EQ(m.Longest("abcd").value, 2);
  EXPECT_EQ(m.Longest("abd").value, 3);
  EXPECT_EQ(m.Longest("ac").value, 1);
  EXPECT_EQ(m.Longest("\xFFz").length, 2u);
  EXPECT_EQ(m.Longest("b").length, 0u);
  EXPECT_EQ(m.Longest("").length, 0u);
  EXPECT_EQ(m.Find("ab"), 3);
  EXPECT_EQ(m.Find("abx"), -1);
}

TEST(ProtoReader, RefusesHostileBytes) {
  for (const std::string& bytes : {std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
                                   std::string("\x0a\x05"
                                               "abc"),
                                   std::string("\x80"), std::string("\x0b"), std::string("\x00\x01", 2),
                                   std::string("\x0d\x01\x02"), std::string(11, '\xff')}) {
    ProtoReader reader(bytes);
    EXPECT_FALSE(reader.Next().ok());
  }
  ProtoReader reader("\x0a\x02hi\x10\x96\x01");
  EXPECT_EQ(reader.Next()->bytes, "hi");
  EXPECT_EQ(reader.Next()->value, 150u);
  EXPECT_TRUE(reader.done());
}

TEST(Charsmap, RefusesBadSizes) {
  EXPECT_TRUE(Charsmap::Parse("").ok());
  EXPECT_FALSE(Charsmap::Parse("abc").ok());
  EXPECT_FALSE(Charsmap::Parse(std::string("\x08\0\0\0\0\0\0\0", 8)).ok());
  const auto map = Charsmap::Parse(std::string("\x04\0\0\0\xff\xff\xff\x7f", 8));  // offsets far outside
  ASSERT_TRUE(map.ok());
  EXPECT_EQ(map->Longest("abc").length, 0u);
}

TEST(Nfc, ComposesAndOrders) {
  EXPECT_EQ(NormalizeNfc("plain"), std::nullopt);
  EXPECT_EQ(NormalizeNfc("e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(NormalizeNfc("a\xCC\x81\xCC\xA3"), "\xE1\xBA\xA1\xCC\x81");             // dot below comes first
  EXPECT_EQ(NormalizeNfc("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"), "\xEA\xB0\x81");  // Hangul
  EXPECT_EQ(NormalizeNfc("\xE2\x84\xAB"), "\xC3\x85");                              // the Angstrom sign
}

TEST(SplitPattern, KeepsEveryByteAndUnicodeSpace) {
  const auto split = SplitPattern::Compile("\\s+|[a-z]+");
  ASSERT_TRUE(split.ok());
  std::vector<std::string_view> pieces;
  split->Split("ab\xE2\x80\x83\x63;;\xE1\xA0\x8E", pieces);  // U+2003 is white space, U+180E is not
  EXPECT_EQ(pieces, (std::vector<std::string_view>{"ab", "\xE2\x80\x83", "c", ";;\xE1\xA0\x8E"}));
  EXPECT_FALSE(SplitPattern::Compile("(").ok());
}

TEST(ByteAlphabet, IsGpt2s) {
  std::string bytes;
  ASSERT_TRUE(AlphabetToBytes("\xC4\xA0t\xC4\x8A!", bytes));
  EXPECT_EQ(bytes, " t\n!");
  EXPECT_FALSE(AlphabetToBytes("a b", bytes));
  EXPECT_FALSE(AlphabetToBytes("\xE4\xBD\xA0", bytes));
}

}  // namespace
}  // namespace fd
