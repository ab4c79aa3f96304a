// Any file as a record: an error, or plans that an executor takes. The model is a fake of the engine's tests,
// whose mathematics touches every page and row that a plan names.
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/crc32.h"
#include "engine/fake_model.h"
#include "engine/record/replay.h"
#include "fuzz_require.h"

namespace {

// Mutated bytes rarely have the right checksum, so every record gets it: what lies behind is what is tested.
std::string WithChecksums(std::string bytes) {
  const size_t begin = fd::kRecordMagic.size() + 4;
  for (size_t at = begin; at + 9 <= bytes.size();) {
    size_t length = 0;
    for (size_t i = 0; i < 4; ++i) length |= size_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
    if (length > bytes.size() - at - 9) break;
    const uint32_t crc = fd::Crc32(std::string_view(bytes).substr(at + 4, length + 1));
    for (size_t i = 0; i < 4; ++i) bytes[at + 5 + length + i] = static_cast<char>(crc >> (8 * i));
    at += 9 + length;
  }
  return bytes;
}

// What a replay allocates by: small.
bool IsSmall(const fd::EngineOptions& o) {
  return o.max_model_len <= 4096 && o.max_num_seqs <= 64 && o.max_num_batched_tokens <= 4096 &&
         o.num_kv_pages <= 4096 && o.max_media_tokens <= 4096 && o.encoder_cache_tokens <= 4096 &&
         o.max_encoder_batch_tokens <= 4096 && o.max_logit_bias <= 4096 && o.max_banned_tokens <= 4096 &&
         o.max_allowed_token_ids <= 4096;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // The first byte chooses whether checksums are made right.
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if ((static_cast<uint8_t>(bytes[0]) & 0x80) == 0) bytes = WithChecksums(std::move(bytes));
  bytes[0] = static_cast<char>(bytes[0] & 0x7f);
  const std::string path = std::string(std::getenv("TMPDIR") ? std::getenv("TMPDIR") : "/tmp") +
                           "/fuzz_record_" + std::to_string(getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  fd::fuzz::Require(file != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(),
                    "a file is written");
  std::fclose(file);
  auto record = fd::RecordReader::Open(path);
  unlink(path.c_str());
  if (!record.ok()) {
    fd::fuzz::Require(!record.status().message().empty(), "an error says something");
    return 0;
  }
  const fd::EngineOptions& options = (*record)->header().options;
  if (!IsSmall(options)) return 0;
  fd::Workspace workspace(fd::Device{}, 1 << 20);
  fd::ThreadPool threads(1);
  fd::ops::Context ctx;
  ctx.threads = &threads;
  ctx.workspace = &workspace;
  fd::ModelConfig config = fd::FakeConfig();
  config.has_head = options.pooling == fd::PoolingType::kNone;
  fd::FakeModel model(std::make_shared<fd::FakeModel::Probe>(), config);
  fd::Executor executor(model, ctx, options);
  const fd::ReplayReport report = fd::Replay(**record, executor, config);
  fd::fuzz::Require(report.differences >= 0, "differences are counted");
  fd::fuzz::Require((report.differences > 0) == !report.first_difference.empty(), "a difference is named");
  return 0;
}
