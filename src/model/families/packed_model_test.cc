// `fastdeploy quantize`'s folder: the same model as quantising while loading, whole or not at all, and read
// as hostile input.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>

#include "base/files.h"
#include "base/new_files.h"
#include "model/families/logits_for_test.h"
#include "model/weights/inspect.h"
#include "model/weights/packed_config.h"
#include "model/weights/safetensors.h"
#include "model/weights/write_for_test.h"

namespace fd {
namespace {

const std::string kModels = "tests/golden/models/";
std::vector<Quantization> Kinds() {
  std::vector<Quantization> kinds = {
      {}, {8, 0}, {4, 0}, {4, 32}, {8, 64}, {4, 0, {8, 0}}, {0, 0, {8, 0}}, {8, 0, {4, 32}}, {0, 0, {4, 32}}};
  for (const char* text :
       {R"({"quantization": "mix_quant", "dense_quant_type": "wint4", "group_size": 32})",
        R"({"quantization": "wint8", "layers": {"*.o_proj": "wint4", "model.layers.1.*": null},
            "modules_to_not_convert": ["*.qkv_proj"], "group_size": 64})"}) {
    kinds.push_back(ParseQuantization(text).value());
  }
  return kinds;
}

bool Contains(const std::string& text, std::string_view piece) {
  return text.find(piece) != std::string::npos;
}

Status Pack(Host& host, const std::string& model_dir, const std::string& out, const Quantization& kind) {
  PackOptions options;
  options.quantization = kind;
  return PackModel(host.ctx, model_dir, out, options);
}

std::vector<std::string> Names(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(PackedModel, IsTheModelQuantisedWhileLoading) {
  Host host;
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    for (const Quantization& kind : Kinds()) {
      SCOPED_TRACE(StrCat(family, " ", QuantizationName(kind)));
      FolderForTest folder;
      const std::string packed = folder.File("packed");
      const Status status = Pack(host, kModels + family, packed, kind);
      ASSERT_TRUE(status.ok()) << status.message();
      for (DType dtype : {DType::kBFloat16, DType::kFloat32}) {
        LoadOptions quantising, as_stored;
        quantising.quantization = kind;
        quantising.dtype = as_stored.dtype = dtype;
        auto opened = OpenModel(host.ctx, packed, as_stored);
        ASSERT_TRUE(opened.ok()) << opened.status().message();
        EXPECT_EQ(opened->quantization(), kind);
        auto expected = LoadModel(host.ctx, kModels + family, quantising);
        ASSERT_TRUE(expected.ok()) << expected.status().message();
        const std::unique_ptr<Model> model = opened->Load(host.ctx);
        EXPECT_EQ(model->weight_bytes(), (*expected)->weight_bytes());
        EXPECT_EQ(LogitsOf(host, *model), LogitsOf(host, **expected));
      }
    }
  }
}

TEST(PackedModel, TheFolder) {
  Host host;
  FolderForTest folder;
  const std::string packed = folder.File("packed"), source = kModels + "ernie4_5_vl_moe";
  std::filesystem::create_directory(packed);  // an empty folder is no obstacle
  const Status status = Pack(host, source, packed + "/", {4, 32});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(Names(folder.path()), std::vector<std::string>{"packed"});
  EXPECT_EQ(Names(packed), Names(source));
  for (const std::string& name : Names(source)) {
    if (name == "config.json" || name == "model.safetensors") continue;
    EXPECT_EQ(ReadFile(JoinPath(packed, name)).value(), ReadFile(JoinPath(source, name)).value()) << name;
  }
  Json config = ReadJsonFile(packed + "/config.json").value();
  EXPECT_EQ(*config.Find("quantization_config"), Json(PackedConfig({4, 32})));
  config.as_object().Erase("quantization_config");
  EXPECT_EQ(config, ReadJsonFile(source + "/config.json").value());

  auto file = SafetensorsFile::Open(packed + "/model.safetensors");
  auto stored = SafetensorsFile::Open(source + "/model.safetensors");
  ASSERT_TRUE(file.ok() && stored.ok());
  int64_t panels = 0, kept = 0;
  for (const TensorInfo& t : (*file)->header().tensors) {
    if (t.name.ends_with(".panels")) {
      EXPECT_EQ(t.offset % 64, 0) << t.name;
      ++panels;
    } else if (!t.name.ends_with(".scales")) {
      const TensorInfo* from = (*stored)->Find(t.name);
      ASSERT_NE(from, nullptr) << t.name;
      EXPECT_EQ(t.dtype, from->dtype);
      EXPECT_EQ(t.shape, from->shape);
      EXPECT_EQ(std::memcmp((*file)->Data(t), (*stored)->Data(*from), static_cast<size_t>(t.size_bytes)), 0);
      ++kept;
    }
  }
  EXPECT_GT(panels, 20);
  EXPECT_GT(kept, 20);
  EXPECT_EQ((*file)->Find("model.layers.0.self_attn.k_proj.weight"), nullptr);
  EXPECT_NE((*file)->Find("model.embed_tokens.weight"), nullptr);
  // Parameters are counted as such, whatever they are kept in; panels are whole.
  const int64_t before = ListTensors(source).value().parameters;
  const int64_t after = ListTensors(packed).value().parameters;
  EXPECT_GE(after, before);
  EXPECT_LT(after, before + before / 4);
}

TEST(PackedModel, WithoutQuantisationEveryLinearLayerLiesInPanels) {
  Host host;
  for (const char* family : {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"}) {
    SCOPED_TRACE(family);
    FolderForTest folder;
    const std::string packed = folder.File("packed"), source = kModels + family;
    const Status status = Pack(host, source, packed, {});
    ASSERT_TRUE(status.ok()) << status.message();
    auto file = SafetensorsFile::Open(packed + "/model.safetensors");
    auto stored = SafetensorsFile::Open(source + "/model.safetensors");
    ASSERT_TRUE(file.ok() && stored.ok());
    int64_t panels = 0;
    for (const TensorInfo& t : (*file)->header().tensors) {
      if (t.name.ends_with(".panels")) {
        EXPECT_TRUE(t.dtype == "BF16" || t.dtype == "F32") << t.dtype;
        EXPECT_EQ(t.offset % 64, 0) << t.name;
        ++panels;
        continue;
      }
      const TensorInfo* from = (*stored)->Find(t.name);
      ASSERT_NE(from, nullptr) << t.name;
      EXPECT_EQ(std::memcmp((*file)->Data(t), (*stored)->Data(*from), static_cast<size_t>(t.size_bytes)), 0);
      EXPECT_EQ(t.name.find("_proj.weight"), std::string::npos) << t.name << " is packed while loading";
    }
    EXPECT_GT(panels, 8);
    EXPECT_NE((*file)->Find("model.embed_tokens.weight"), nullptr) << "rows of it are read";
    const Json config = ReadJsonFile(packed + "/config.json").value();
    EXPECT_EQ(WriteJson(*config.Find("quantization_config")),
              R"({"quant_method":"fastdeploy_cpp","format_version":2,"quantization":"none"})");
  }
}

TEST(PackedModel, AnotherKindIsRefused) {
  Host host;
  FolderForTest folder;
  const std::string packed = folder.File("packed");
  ASSERT_TRUE(Pack(host, kModels + "ernie4_5", packed, {4, 64}).ok());
  LoadOptions options;
  options.quantization = {4, 64};
  EXPECT_TRUE(OpenModel(host.ctx, packed, options).ok());
  options.quantization = {8, 0};
  const auto opened = OpenModel(host.ctx, packed, options);
  ASSERT_FALSE(opened.ok());
  EXPECT_TRUE(Contains(opened.status().message(), "--quantization wint8")) << opened.status().message();
  EXPECT_TRUE(Contains(opened.status().message(), R"({"quantization":"wint4","group_size":64})"));
  options.quantization = {4, 64, {4, 32}};
  EXPECT_TRUE(
      Contains(OpenModel(host.ctx, packed, options).status().message(), "--quantize-lm-head wint4: "));
  const std::string plain = folder.File("plain");
  ASSERT_TRUE(Pack(host, kModels + "ernie4_5", plain, {}).ok());
  EXPECT_TRUE(Contains(OpenModel(host.ctx, plain, options).status().message(),
                       "is packed as none (weights as stored) and stays so"));
  // Random weights come in the same form.
  options = {};
  options.random_weights = true;
  EXPECT_EQ(OpenModel(host.ctx, packed, options)->quantization(), (Quantization{4, 64}));
}

TEST(PackedModel, WhatCannotBePacked) {
  Host host;
  FolderForTest folder;
  const std::string source = kModels + "ernie4_5", packed = folder.File("packed");
  ASSERT_TRUE(Pack(host, source, packed, {8, 0}).ok());
  EXPECT_TRUE(Contains(Pack(host, source, packed, {8, 0}).message(), "exists and is no empty folder"));
  EXPECT_TRUE(Contains(Pack(host, source, packed + "/config.json", {8, 0}).message(), "no empty folder"));
  EXPECT_TRUE(Contains(Pack(host, packed, folder.File("again"), {8, 0}).message(), "packed as wint8"));
  EXPECT_TRUE(Contains(Pack(host, packed, folder.File("again"), {}).message(), "packed as wint8"));
  EXPECT_TRUE(Contains(Pack(host, source, folder.File("no/out"), {8, 0}).message(), "no such directory"));
  EXPECT_TRUE(Contains(Pack(host, source, folder.File("out"), {4, 48}).message(), "multiple of 32"));
  PackOptions options;
  options.quantization = {8, 0};
  int64_t asked = 0;
  options.stopped = [&asked] { return ++asked == 5; };
  EXPECT_TRUE(Contains(PackModel(host.ctx, source, folder.File("out"), options).message(), "interrupted"));
  EXPECT_EQ(asked, 5);

  FolderForTest other;
  other.CopyFrom(source);
  Json config = ReadJsonFile(other.File("config.json")).value();
  config.as_object().Set("quantization_config", JsonObject{{"quant_method", "gptq"}});
  WriteFileForTest(other.File("config.json"), WriteJson(config));
  EXPECT_TRUE(Contains(Pack(host, other.path(), folder.File("out"), {8, 0}).message(), "quant_method gptq"));
  other.CopyFrom(source);
  std::filesystem::create_symlink("nowhere", other.File("tokenizer.json"));
  EXPECT_TRUE(Contains(Pack(host, other.path(), folder.File("out"), {8, 0}).message(), "tokenizer.json"));
  std::filesystem::resize_file(other.File("model.safetensors"), 100'000);
  EXPECT_TRUE(Contains(Pack(host, other.path(), folder.File("out"), {8, 0}).message(), "truncated"));
  EXPECT_EQ(Names(folder.path()), std::vector<std::string>{"packed"}) << "nothing is left";
}

// The packed file with its tensors changed by `edit`.
std::string ErrorOf(const std::function<void(std::vector<TensorForTest>&)>& edit,
                    const Quantization& kind = {4, 32}) {
  Host host;
  FolderForTest folder;
  const std::string packed = folder.File("packed"), path = packed + "/model.safetensors";
  const Status status = Pack(host, kModels + "ernie4_5_moe", packed, kind);
  if (!status.ok()) return status.message();
  std::vector<TensorForTest> tensors;
  {
    auto file = SafetensorsFile::Open(path);
    if (!file.ok()) return file.status().message();
    for (const TensorInfo& t : (*file)->header().tensors) {
      const char* data = reinterpret_cast<const char*>((*file)->Data(t));
      tensors.push_back({t.name, t.dtype, t.shape, std::string(data, static_cast<size_t>(t.size_bytes))});
    }
  }
  edit(tensors);
  WriteFileForTest(path, SafetensorsForTest(tensors));
  auto model = LoadModel(host.ctx, packed, {});
  return model.ok() ? "no error" : model.status().message();
}

TEST(PackedModel, HostileTensors) {
  const std::string name = "model.layers.1.mlp.experts.3.down_proj.weight";
  const auto named = [](std::vector<TensorForTest>& tensors, const std::string& wanted) -> TensorForTest& {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const TensorForTest& t) { return t.name == wanted; });
  };
  EXPECT_EQ(ErrorOf([](auto&) {}), "no error");
  std::string e = ErrorOf([&](auto& tensors) {
    TensorForTest& t = named(tensors, name + ".panels");
    std::swap(t.shape[0], t.shape[1]);
  });
  EXPECT_TRUE(Contains(e, name + ".panels: expected U8 [")) << e;
  e = ErrorOf([&](auto& tensors) {  // 8 bits where 4 are said
    TensorForTest& t = named(tensors, name + ".panels");
    t.shape[2] *= 2;
    t.bytes += t.bytes;
  });
  EXPECT_TRUE(Contains(e, ", 64], found U8 [")) << e;
  e = ErrorOf([&](auto& tensors) { named(tensors, name + ".panels").dtype = "I8"; });
  EXPECT_TRUE(Contains(e, "found I8")) << e;
  e = ErrorOf([&](auto& tensors) {  // one group fewer
    TensorForTest& t = named(tensors, name + ".scales");
    t.bytes.resize(t.bytes.size() / static_cast<size_t>(t.shape[1]) * static_cast<size_t>(t.shape[1] - 1));
    --t.shape[1];
  });
  EXPECT_TRUE(Contains(e, name + ".scales: expected BF16 [")) << e;
  for (const char* end : {".panels", ".scales"}) {
    e = ErrorOf([&](auto& tensors) {
      std::erase_if(tensors, [&](const TensorForTest& t) { return t.name == name + end; });
    });
    EXPECT_TRUE(Contains(e, name + end + " is missing")) << e;
  }
  e = ErrorOf([&](auto& tensors) { tensors.push_back({name, "BF16", {1}, "ab"}); });
  EXPECT_TRUE(Contains(e, "belongs to nothing")) << e;
}

TEST(PackedModel, HostileTensorsThatAreNotQuantised) {
  const std::string name = "model.layers.1.mlp.experts.3.down_proj.weight";
  const auto error = [&](const std::function<void(TensorForTest&)>& edit) {
    return ErrorOf(
        [&](std::vector<TensorForTest>& tensors) {
          for (TensorForTest& t : tensors) {
            if (t.name == name + ".panels") edit(t);
          }
        },
        {});
  };
  EXPECT_EQ(error([](auto&) {}), "no error");
  std::string e = error([](TensorForTest& t) { std::swap(t.shape[0], t.shape[1]); });
  EXPECT_TRUE(Contains(e, name + ".panels: expected BF16 [")) << e;
  e = error([](TensorForTest& t) {  // one panel more
    t.bytes += t.bytes.substr(0, t.bytes.size() / static_cast<size_t>(t.shape[0]));
    ++t.shape[0];
  });
  EXPECT_TRUE(Contains(e, name + ".panels: expected BF16 [")) << e;
  e = error([](TensorForTest& t) { t.dtype = "F16"; });
  EXPECT_TRUE(Contains(e, "found F16")) << e;
  e = error([](TensorForTest& t) {  // another type than the other experts, in the shape that it has
    t.dtype = "F32";
    t.shape = {t.shape[0], 2 * t.shape[1], t.shape[2] / 2};
    t.bytes += t.bytes;
  });
  EXPECT_TRUE(Contains(e, "found F32, expected BF16 as")) << e;
  e = error([](TensorForTest& t) { t.name = "other"; });
  EXPECT_TRUE(Contains(e, name + ".panels is missing")) << e;
  EXPECT_TRUE(Contains(e, "other BF16")) << e;
  e = error([&](TensorForTest& t) { t.name = name; });  // as an ordinary checkpoint has it
  EXPECT_TRUE(Contains(e, name + ".panels is missing")) << e;
}

TEST(PackedModel, HostileFiles) {
  Host host;
  FolderForTest folder;
  const std::string packed = folder.File("packed"), path = packed + "/model.safetensors";
  ASSERT_TRUE(Pack(host, kModels + "ernie4_5", packed, {8, 0}).ok());
  const auto error = [&] {
    auto model = LoadModel(host.ctx, packed, {});
    return model.ok() ? std::string("no error") : model.status().message();
  };
  const std::vector<float> expected = LogitsOf(host, **LoadModel(host.ctx, packed, {}));
  // Panels that begin at an odd byte are copied into place.
  std::string bytes = ReadFile(path).value();
  const std::string good = bytes;
  bytes[0] = static_cast<char>(bytes[0] + 1);
  bytes.insert(9, " ");
  WriteFileForTest(path, bytes);
  auto odd = LoadModel(host.ctx, packed, {});
  ASSERT_TRUE(odd.ok()) << odd.status().message();
  EXPECT_EQ(LogitsOf(host, **odd), expected);
  WriteFileForTest(path, std::string_view(good).substr(0, good.size() / 2));
  EXPECT_TRUE(Contains(error(), "truncated")) << error();
  WriteFileForTest(path, good);
  ASSERT_EQ(error(), "no error");

  const auto with = [&](JsonObject changes) {
    Json config = ReadJsonFile(packed + "/config.json").value();
    JsonObject entry = PackedConfig({8, 0});
    for (const auto& [key, value] : changes) entry.Set(key, value);
    config.as_object().Set("quantization_config", entry);
    WriteFileForTest(packed + "/config.json", WriteJson(config));
    return error();
  };
  EXPECT_TRUE(Contains(with({{"format_version", 3}}), "format_version is 3; this program reads 1 and 2"));
  EXPECT_TRUE(Contains(with({{"format_version", 2}}), "embed_tokens.weight.panels is missing"));
  EXPECT_TRUE(Contains(with({{"quantization", "wint2"}}), "wint2 is still to come"));
  EXPECT_TRUE(Contains(with({{"quantization", "none"}}), "nothing is quantised"));
  for (bool head : {false, true}) {  // as earlier builds wrote it
    EXPECT_TRUE(Contains(with({{"lm_head", head}}),
                         "lm_head must be wint8, wint4 or null, not a boolean, as earlier builds wrote it; "
                         "make the folder anew"));
  }
  EXPECT_TRUE(Contains(with({{"lm_head", "wint2"}}), "lm_head wint2 is still to come"));
  for (const char* head : {"wint8", "wint4"}) {
    EXPECT_TRUE(Contains(with({{"lm_head", head}}), "embed_tokens.weight.panels is missing"));
  }
  EXPECT_TRUE(Contains(with({{"group_size", 33}}), "group_size must be a multiple of 32"));
  EXPECT_TRUE(Contains(with({{"group_size", "all"}}), "group_size must be a multiple of 32"));
  EXPECT_TRUE(Contains(with({{"group_size", 32}}), ".scales: expected BF16")) << "groups show in the shapes";
  EXPECT_TRUE(Contains(with({{"quantization", "wint4"}}), ".panels: expected U8")) << "so do the bits";
  EXPECT_TRUE(Contains(with({{"quant_method", "other"}}), "the key quant_method is"));
  EXPECT_EQ(with({}), "no error");
}

TEST(NewFiles, AFullDiskIsToldAtOnce) {
  FolderForTest folder;
  NewFile file;
  const Status status = file.Create(folder.File("large"), int64_t{1} << 60);
  ASSERT_FALSE(status.ok());
  EXPECT_TRUE(Contains(status.message(), "large: ")) << status.message();
}

}  // namespace
}  // namespace fd
