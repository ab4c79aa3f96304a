// fastdeploy inspect: config summary, tensors and totals of a checkpoint, from headers alone.
#include <cstdio>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/json.h"
#include "base/strings.h"
#include "command.h"
#include "flag_set.h"
#include "model/config/model_config.h"
#include "model/weights/inspect.h"
#include "model/weights/packed_config.h"
#include "model_flags.h"

namespace fd {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::vector<std::string> sides;
  for (int64_t side : shape) sides.push_back(StrCat(side));
  return StrCat("[", Join(sides, ", "), "]");
}

// "15728640" -> "15.7 M".
std::string HumanCount(int64_t count) {
  if (count >= 1'000'000'000) return StrCat(Fixed(count / 1e9, 1), " B");
  if (count >= 1'000'000) return StrCat(Fixed(count / 1e6, 1), " M");
  return StrCat(count);
}

JsonObject ConfigJson(const ModelConfig& config) {
  JsonObject out{{"family", config.family},
                 {"num_layers", config.num_layers},
                 {"hidden_size", config.hidden_size},
                 {"num_heads", config.num_heads},
                 {"num_kv_heads", config.num_kv_heads},
                 {"head_dim", config.head_dim},
                 {"intermediate_size", config.intermediate_size},
                 {"vocab_size", config.vocab_size},
                 {"max_position_embeddings", config.max_position_embeddings},
                 {"rope_theta", config.rope_theta},
                 {"rope_type", RopeKindName(config.rope_scaling.kind)},
                 {"rope_factor", config.rope_scaling.factor},
                 {"context_tokens", MaxContextTokens(config)},
                 {"tie_word_embeddings", config.tie_word_embeddings}};
  if (config.moe) {
    int64_t sparse = 0;
    for (bool s : config.layer_is_sparse) sparse += s ? 1 : 0;
    out.Set("moe", JsonObject{{"sparse_layers", sparse},
                              {"num_experts", config.moe->num_experts},
                              {"top_k", config.moe->top_k},
                              {"intermediate_size", config.moe->intermediate_size},
                              {"vision_intermediate_size", config.moe->vision_intermediate_size},
                              {"num_shared_experts", config.moe->num_shared_experts}});
  }
  if (config.vision) {
    out.Set("vision", JsonObject{{"depth", config.vision->depth},
                                 {"hidden_size", config.vision->hidden_size},
                                 {"num_heads", config.vision->num_heads},
                                 {"intermediate_size", config.vision->intermediate_size},
                                 {"patch_size", config.vision->patch_size}});
  }
  return out;
}

std::string ConfigText(const ModelConfig& config) {
  std::string text = StrCat("family     ", config.family, "\n");
  text += StrCat("text       ", config.num_layers, " layers, hidden ", config.hidden_size, ", ",
                 config.num_heads, " query and ", config.num_kv_heads, " kv heads of ", config.head_dim,
                 ", MLP ", config.intermediate_size, ", vocabulary ", config.vocab_size,
                 config.tie_word_embeddings ? ", tied head" : "", "\n");
  if (config.moe) {
    int64_t sparse = 0;
    for (bool s : config.layer_is_sparse) sparse += s ? 1 : 0;
    text += StrCat("experts    ", sparse, " sparse layers, ", config.moe->num_experts, " text experts of ",
                   config.moe->intermediate_size);
    if (config.moe->vision_intermediate_size > 0) {
      text += StrCat(" and ", config.moe->num_experts, " vision experts of ",
                     config.moe->vision_intermediate_size);
    }
    text += StrCat(", top ", config.moe->top_k, ", ", config.moe->num_shared_experts, " shared\n");
  }
  if (config.vision) {
    text += StrCat("vision     ", config.vision->depth, " layers, hidden ", config.vision->hidden_size, ", ",
                   config.vision->num_heads, " heads, patches of ", config.vision->patch_size, " pixels\n");
  }
  const RopeScaling& rope = config.rope_scaling;
  text += StrCat("context    ", MaxContextTokens(config), " tokens",
                 rope.kind == RopeKind::kDefault
                     ? std::string()
                     : StrCat(", rope scaling ", RopeKindName(rope.kind), " of factor ", rope.factor),
                 "\n");
  return text;
}

// "none", "wint4 in panels" of our own making, or what another program calls its method.
std::string QuantizationText(const StatusOr<StoredQuantization>& stored) {
  if (!stored.ok()) return stored.status().message();
  if (stored->packed) return PackedName(*stored->packed) + " in panels";
  return stored->method.empty() ? "none" : stored->method;
}

void PrintText(const std::string& model_dir, const StatusOr<ModelConfig>& config,
               const CheckpointListing& listing, const std::string& quantization) {
  std::string text = StrCat("checkpoint ", model_dir, "\n");
  text += config.ok() ? ConfigText(*config)
                      : StrCat("config     not one this program can run: ", config.status().message(), "\n");
  if (quantization != "none") text += StrCat("quantised  ", quantization, "\n");
  text += StrCat("weights    ", HumanCount(listing.parameters), " parameters (", listing.parameters, ") in ",
                 listing.tensors.size(), " tensors, ", listing.num_files,
                 listing.num_files == 1 ? " file, " : " files, ", HumanBytes(listing.size_bytes), "\n");
  for (const DTypeTotal& total : listing.dtypes) {
    text += StrCat("           ", total.dtype, ": ", total.tensors, " tensors, ",
                   HumanCount(total.parameters), ", ", HumanBytes(total.size_bytes), "\n");
  }
  text += "\n";
  size_t name_width = 4, shape_width = 5;
  for (const ListedTensor& tensor : listing.tensors) {
    name_width = std::max(name_width, tensor.name.size());
    shape_width = std::max(shape_width, ShapeText(tensor.shape).size());
  }
  for (const ListedTensor& tensor : listing.tensors) {
    std::string shape = ShapeText(tensor.shape);
    text += StrCat(tensor.name, std::string(name_width - tensor.name.size() + 2, ' '), tensor.dtype,
                   std::string(tensor.dtype.size() < 6 ? 6 - tensor.dtype.size() : 1, ' '), shape,
                   std::string(shape_width - shape.size() + 2, ' '), tensor.file, "\n");
  }
  std::fputs(text.c_str(), stdout);
}

void PrintJson(const std::string& model_dir, const StatusOr<ModelConfig>& config,
               const CheckpointListing& listing, const std::string& quantization) {
  JsonArray tensors;
  for (const ListedTensor& tensor : listing.tensors) {
    JsonArray shape;
    for (int64_t side : tensor.shape) shape.push_back(side);
    tensors.push_back(JsonObject{{"name", tensor.name},
                                 {"dtype", tensor.dtype},
                                 {"shape", std::move(shape)},
                                 {"bytes", tensor.size_bytes},
                                 {"file", tensor.file}});
  }
  JsonArray dtypes;
  for (const DTypeTotal& total : listing.dtypes) {
    dtypes.push_back(JsonObject{{"dtype", total.dtype},
                                {"tensors", total.tensors},
                                {"parameters", total.parameters},
                                {"bytes", total.size_bytes}});
  }
  JsonObject out{{"checkpoint", model_dir}};
  if (config.ok()) {
    out.Set("config", ConfigJson(*config));
  } else {
    out.Set("config", nullptr);
    out.Set("config_error", config.status().message());
  }
  out.Set("quantization", quantization);
  out.Set("parameters", listing.parameters);
  out.Set("bytes", listing.size_bytes);
  out.Set("files", listing.num_files);
  out.Set("dtypes", std::move(dtypes));
  out.Set("tensors", std::move(tensors));
  std::puts(WriteJson(out).c_str());
}

}  // namespace

int RunInspect(const std::vector<std::string>& args) {
  std::string model_dir;
  bool json = false;
  FlagSet flags("fastdeploy inspect MODEL [FLAGS]",
                "Prints what is in a checkpoint: its config, tensors and totals.");
  flags.Group("Model");
  flags.Text("model", &model_dir, "The checkpoint's folder; also the first word", "DIR");
  flags.Group("Output");
  flags.Switch("json", &json, "One JSON object instead of text");
  auto parsed = flags.Parse(args);
  if (!parsed.ok()) return UsageError("inspect", parsed.status());
  if (!*parsed) return kExitOk;
  std::vector<std::string> words = flags.words();
  if (Status status = TakeModel(&model_dir, &words); !status.ok()) return UsageError("inspect", status);
  if (!words.empty())
    return UsageError("inspect", InvalidArgument(StrCat("unexpected word '", words[0], "'")));
  if (Status status = CheckModelFolder(model_dir); !status.ok()) return Failure("inspect", status);

  StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  StatusOr<CheckpointListing> listing = ListTensors(model_dir);
  if (!listing.ok()) return Failure("inspect", listing.status());
  const std::string quantization = QuantizationText(ReadStoredQuantization(model_dir));
  if (json) {
    PrintJson(model_dir, config, *listing, quantization);
  } else {
    PrintText(model_dir, config, *listing, quantization);
  }
  return kExitOk;
}

}  // namespace fd
