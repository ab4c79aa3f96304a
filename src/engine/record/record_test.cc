#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "base/fault.h"
#include "base/log_sink.h"
#include "base/strings.h"
#include "engine/engine.h"
#include "engine/fake_model.h"
#include "engine/plan/step_plan_io.h"
#include "engine/record/record_file.h"
#include "engine/record/recorder.h"
#include "engine/record/replay.h"

namespace fd {
namespace {

std::string FreshPath(const std::string& name) {
  const std::string path = testing::TempDir() + "fd_record_" + std::to_string(getpid()) + "_" + name;
  std::filesystem::remove(path);
  return path;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void WriteAll(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::ssize(bytes));
}

struct Machine {
  Machine() : workspace(Device{}, 1 << 20), threads(1) {
    ctx.threads = &threads;
    ctx.workspace = &workspace;
  }
  Workspace workspace;
  ThreadPool threads;
  ops::Context ctx;
};

EngineOptions Options(bool overlap) {
  EngineOptions o;
  o.overlap = overlap;
  o.max_model_len = 512;
  o.max_num_seqs = 6;
  o.max_num_batched_tokens = 48;
  o.num_kv_pages = 6;  // so few that sequences are preempted
  o.max_media_tokens = 16;
  o.encoder_cache_tokens = 80;
  return o;
}

std::shared_ptr<MediaItem> Picture(int64_t first_token, uint8_t pixel) {
  auto item = std::make_shared<MediaItem>();
  item->grid_h = 6;
  item->grid_w = 8;
  item->patch_rows.assign(48 * 588, pixel);
  item->num_tokens = 12;
  item->first_token = first_token;
  item->content_hash = {pixel, 99};
  return item;
}

// Everything that a plan can hold: pictures, expert sets, penalties, biases, bans, log-probabilities of both
// kinds, seeds, a prompt that fails its step, one whose logits are no numbers.
std::vector<GenerateRequest> Requests(int count) {
  std::mt19937 rng(5);
  std::vector<GenerateRequest> requests;
  for (int i = 1; i <= count; ++i) {
    GenerateRequest r;
    r.id = static_cast<RequestId>(i);
    const int64_t n = 10 + rng() % 150;
    for (int64_t k = 0; k < n; ++k)
      r.token_ids.push_back(3 + (i % 4 == 0 ? k : static_cast<int64_t>(rng())) % 90);
    r.sampling.max_tokens = 20 + rng() % 100;
    r.sampling.temperature = i % 3 == 0 ? 0.0f : 2.0f;
    r.sampling.seed = rng();
    if (i % 3 == 1) r.sampling.top_k = 20;
    if (i % 4 == 1) r.sampling.repetition_penalty = 1.3f;
    if (i % 5 == 1) r.sampling.logit_bias = {{7, 3.0f}, {9, -3.0f}};
    if (i % 5 == 2) r.sampling.bad_words = {{5}, {6, 7}};
    if (i % 4 == 2) r.sampling.top_logprobs = 3;
    if (i % 6 == 3) r.sampling.prompt_logprobs = 2;
    if (i % 2 == 0) {
      r.vision_expert.assign(static_cast<size_t>(n), 0);
      for (int64_t at = 1; at + 12 <= n; at += 40)
        r.media.push_back(Picture(at, static_cast<uint8_t>(rng() % 3)));
      r.vision_expert[0] = 1;
    }
    if (i == 20) r.token_ids[8] = kThrowToken;
    if (i == 7) r.token_ids[3] = kNanToken;
    r.sink = [](TokenEvent&&) {};
    requests.push_back(std::move(r));
  }
  return requests;
}

RecordHeader Header(const EngineOptions& options) {
  return {{{"model", "fake"}, {"build", "1", false}}, JsonObject{{"dtype", "float32"}}, options};
}

// Runs an engine that records into `path`. stops: waits for the recorder, which may be behind, to do so.
EngineStats RecordRun(const std::string& path, const EngineOptions& options, int count, bool stops = false) {
  Machine m;
  auto recorder = Recorder::Create(path);
  EXPECT_TRUE(recorder.ok()) << recorder.status().message();
  (*recorder)->Begin(Header(options));
  Engine engine(std::make_unique<FakeModel>(std::make_shared<FakeModel::Probe>()), m.ctx, options);
  const Recorder& writer = **recorder;
  engine.Record(std::move(*recorder));
  EXPECT_TRUE(stops || engine.Stats().recording);
  for (GenerateRequest& r : Requests(count)) EXPECT_TRUE(engine.Submit(std::move(r)).ok());
  engine.Start();
  engine.Drain(Clock::now() + std::chrono::seconds(120));
  const auto deadline = Clock::now() + std::chrono::seconds(120);
  while (stops && writer.recording() && Clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EngineStats stats = engine.Stats();  // of the last step
  stats.recording = writer.recording();
  stats.recorded_bytes = writer.written_bytes();
  return stats;
}

ReplayReport ReplayOf(const std::string& path) {
  Machine m;
  FakeModel model(std::make_shared<FakeModel::Probe>());
  auto record = RecordReader::Open(path);
  if (!record.ok()) {
    ReplayReport report;
    report.damage = record.status();
    return report;
  }
  Executor executor(model, m.ctx, (*record)->header().options);
  return Replay(**record, executor, model.config());
}

class RecordLoop : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, RecordLoop, testing::Bool());

TEST_P(RecordLoop, AReplayDrawsTheSame) {
  const std::string path = FreshPath("same");
  const EngineStats stats = RecordRun(path, Options(GetParam()), 24);
  EXPECT_GT(stats.preemptions, 0);
  const ReplayReport report = ReplayOf(path);
  EXPECT_TRUE(report.damage.ok()) << report.damage.message();
  EXPECT_EQ(report.first_difference, "");
  EXPECT_EQ(report.differences, 0);
  // Overlapped, one may have been in flight when the last request ended.
  EXPECT_GE(report.steps, stats.steps);
  EXPECT_LE(report.steps, stats.steps + (GetParam() ? 1 : 0));
  EXPECT_GE(report.tokens, stats.generated_tokens);
  EXPECT_GT(report.failed, 0);
  EXPECT_FALSE(report.truncated);
  EXPECT_EQ(report.steps_without_result, 0);
  std::filesystem::remove(path);
}

// Copies a record with one result changed; returns the step of it.
int64_t ChangeOneResult(const std::string& from, const std::string& to,
                        const std::function<bool(StepResult&)>& change) {
  const std::string bytes = ReadAll(from);
  const size_t begin = kRecordMagic.size() + 4;
  std::string out = bytes.substr(0, begin);
  int64_t step = -1;
  for (size_t at = begin; at + 9 <= bytes.size();) {
    uint32_t length;
    std::memcpy(&length, bytes.data() + at, 4);
    const auto kind = static_cast<RecordKind>(bytes[at + 4]);
    std::string payload = bytes.substr(at + 5, length);
    if (kind == RecordKind::kResult && step < 0) {
      StepResult result = *ReadResult(payload);
      if (change(result)) {
        step = result.step;
        payload.clear();
        WriteResult(result, &payload);
      }
    }
    out += FramedRecord(kind, payload);
    at += 9 + length;
  }
  WriteAll(to, out);
  return step;
}

TEST_P(RecordLoop, OneOtherTokenIsFound) {
  const std::string path = FreshPath("right"), changed = FreshPath("wrong");
  RecordRun(path, Options(GetParam()), 12);
  int count = 0;
  const int64_t step = ChangeOneResult(path, changed, [&](StepResult& r) {
    if (r.tokens.empty() || ++count < 20) return false;
    r.tokens.back().token_id ^= 1;
    return true;
  });
  ASSERT_GE(step, 0);
  const ReplayReport report = ReplayOf(changed);
  EXPECT_EQ(report.differences, 1);
  EXPECT_TRUE(report.first_difference.starts_with(StrCat("step ", step, ", request ")))
      << report.first_difference;
  EXPECT_NE(report.first_difference.find("position"), std::string::npos) << report.first_difference;

  // One bit of a log-probability, of a likeliest token's, of a prompt's.
  const std::function<bool(StepResult&)> changes[] = {
      [](StepResult& r) {
        if (r.tokens.empty() || r.tokens[0].token_id < 0) return false;
        r.tokens[0].logprob = std::nextafter(r.tokens[0].logprob, 1.0f);
        return true;
      },
      [](StepResult& r) {
        for (auto& t : r.tokens) {
          if (t.top_logprobs.empty()) continue;
          t.top_logprobs[1].logprob = std::nextafter(t.top_logprobs[1].logprob, 1.0f);
          return true;
        }
        return false;
      },
      [](StepResult& r) {
        if (r.scores.empty()) return false;
        r.scores[0].prompt_logprobs.back().rank += 1;
        return true;
      },
      [](StepResult& r) {
        if (r.tokens.empty()) return false;
        r.tokens.pop_back();
        return true;
      }};
  for (const auto& change : changes) {
    const int64_t where = ChangeOneResult(path, changed, change);
    ASSERT_GE(where, 0);
    const ReplayReport other = ReplayOf(changed);
    EXPECT_EQ(other.differences, 1) << other.first_difference;
    EXPECT_TRUE(other.first_difference.starts_with(StrCat("step ", where))) << other.first_difference;
  }
  std::filesystem::remove(path);
  std::filesystem::remove(changed);
}

TEST_P(RecordLoop, AnEngineThatPools) {
  for (const PoolingType pooling : {PoolingType::kLast, PoolingType::kMean}) {
    const std::string path = FreshPath("pool");
    EngineOptions options = Options(GetParam());
    options.pooling = pooling;
    Machine m;
    ModelConfig config = FakeConfig();
    config.has_head = false;
    {
      auto recorder = Recorder::Create(path);
      ASSERT_TRUE(recorder.ok());
      (*recorder)->Begin(Header(options));
      Engine engine(std::make_unique<FakeModel>(std::make_shared<FakeModel::Probe>(), config), m.ctx,
                    options);
      engine.Record(std::move(*recorder));
      for (GenerateRequest& r : Requests(4)) EXPECT_TRUE(engine.Submit(std::move(r)).ok());
      engine.Start();
      engine.Drain(Clock::now() + std::chrono::seconds(120));
    }
    auto record = RecordReader::Open(path);
    ASSERT_TRUE(record.ok());
    FakeModel model(std::make_shared<FakeModel::Probe>(), config);
    Executor executor(model, m.ctx, (*record)->header().options);
    const ReplayReport report = Replay(**record, executor, config);
    EXPECT_EQ(report.first_difference, "");
    EXPECT_TRUE(report.damage.ok()) << report.damage.message();
    EXPECT_GE(report.tokens, 4);
    std::filesystem::remove(path);
  }
}

// Cut anywhere, what is before is replayed; damaged anywhere, what is before is, and it says so.
TEST(Record, CutAndDamaged) {
  const std::string path = FreshPath("whole"), other = FreshPath("part");
  RecordRun(path, Options(false), 4);
  const std::string bytes = ReadAll(path);
  const int64_t steps = ReplayOf(path).steps;
  int64_t last = -1;
  for (size_t cut = 100; cut < bytes.size(); cut += bytes.size() / 40) {
    WriteAll(other, std::string_view(bytes).substr(0, cut));
    const ReplayReport report = ReplayOf(other);
    EXPECT_EQ(report.differences, 0);
    if (!report.damage.ok()) {  // within the header
      EXPECT_EQ(last, -1);
      continue;
    }
    EXPECT_TRUE(report.truncated);
    EXPECT_GE(report.steps, last);
    EXPECT_LT(report.steps, steps + 1);
    last = report.steps;
  }
  EXPECT_GT(last, 3);
  for (size_t at = 0; at < bytes.size(); at += bytes.size() / 60) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    WriteAll(other, changed);
    const ReplayReport report = ReplayOf(other);
    EXPECT_FALSE(report.damage.ok() && !report.truncated) << at;
    EXPECT_EQ(report.differences, 0) << at;
  }
  WriteAll(other, bytes + "x");
  EXPECT_FALSE(ReplayOf(other).damage.ok());
  for (const char* text : {"", "FDRECORD", "no record at all, but long enough to be read as one"}) {
    WriteAll(other, text);
    const ReplayReport report = ReplayOf(other);
    EXPECT_NE(report.damage.message().find(other), std::string::npos) << report.damage.message();
  }
  EXPECT_EQ(RecordReader::Open(FreshPath("none")).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(RecordReader::Open("/dev/zero").ok());
  std::filesystem::remove(path);
  std::filesystem::remove(other);
}

TEST(Record, OnlyItsOwnerReadsItAndNothingIsWrittenOver) {
  const std::string path = FreshPath("mode");
  const mode_t before = umask(0);
  RecordRun(path, Options(false), 1);
  umask(before);
  struct stat info{};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const std::string bytes = ReadAll(path);
  const auto again = Recorder::Create(path);
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.status().param(), "--record");
  EXPECT_NE(again.status().message().find(path), std::string::npos);
  EXPECT_EQ(ReadAll(path), bytes);
  EXPECT_FALSE(Recorder::Create(testing::TempDir() + "no/such/folder/x").ok());
  const std::string unused = FreshPath("unused");
  {
    const auto recorder = Recorder::Create(unused);
  }
  EXPECT_FALSE(std::filesystem::exists(unused));
  std::filesystem::remove(path);
}

// The engine goes on; what is there can be replayed.
TEST(Record, AFullDisk) {
  const std::string path = FreshPath("full");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const EngineStats stats = RecordRun(path, Options(false), 24, true);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_FALSE(stats.recording);
  EXPECT_GT(stats.recorded_bytes, 90000);
  EXPECT_LE(stats.recorded_bytes, 100000);
  EXPECT_EQ(ReadAll(path).size(), static_cast<size_t>(stats.recorded_bytes));
  EXPECT_EQ(stats.running + stats.waiting, 0);
  const ReplayReport report = ReplayOf(path);
  EXPECT_TRUE(report.damage.ok()) << report.damage.message();
  EXPECT_TRUE(report.truncated);
  EXPECT_EQ(report.first_difference, "");
  EXPECT_GT(report.steps, 0);
  EXPECT_LT(report.steps, stats.steps);
  std::filesystem::remove(path);
}

// The kinds of a file's records; it must not end within one.
std::vector<RecordKind> KindsIn(const std::string& path) {
  const std::string bytes = ReadAll(path);
  std::vector<RecordKind> kinds;
  size_t at = kRecordMagic.size() + 4;
  while (at + 9 <= bytes.size()) {
    uint32_t length;
    std::memcpy(&length, bytes.data() + at, 4);
    kinds.push_back(static_cast<RecordKind>(bytes[at + 4]));
    at += 9 + length;
  }
  EXPECT_TRUE(at == bytes.size() || bytes.empty()) << path << " of " << bytes.size() << " bytes, not " << at;
  return kinds;
}

// Whatever does not fit: nothing of it stays, the file ends behind a result and one warning names its step.
TEST_P(RecordLoop, AFullDiskAtAnyPiece) {
  const std::string path = FreshPath("fault");
  int64_t last_steps = 0;
  for (int at = 1; at < 80; at += at < 12 ? 1 : 17) {
    ASSERT_TRUE(SetFaults(StrCat("record_disk_full@at=", at)).ok());
    testing::internal::CaptureStderr();
    const EngineStats stats = RecordRun(path, Options(GetParam()), 4, true);
    FlushLog();
    const std::string log = testing::internal::GetCapturedStderr();
    ASSERT_TRUE(SetFaults("").ok());
    EXPECT_FALSE(stats.recording);
    EXPECT_EQ(stats.running + stats.waiting, 0);
    EXPECT_EQ(stats.recorded_bytes, std::ssize(ReadAll(path)));
    const size_t warning = log.find("no more steps are recorded");
    ASSERT_NE(warning, std::string::npos) << log;
    EXPECT_EQ(log.find("no more steps are recorded", warning + 1), std::string::npos) << log;
    EXPECT_NE(log.find("No space left on device"), std::string::npos) << log;
    const std::vector<RecordKind> kinds = KindsIn(path);
    const ReplayReport report = ReplayOf(path);
    if (at == 1) {  // the header
      EXPECT_TRUE(kinds.empty());
      EXPECT_FALSE(report.damage.ok());
    } else {
      ASSERT_FALSE(kinds.empty());
      EXPECT_EQ(kinds.back(), kinds.size() == 1 ? RecordKind::kHeader : RecordKind::kResult);
      EXPECT_EQ(report.steps, std::count(kinds.begin(), kinds.end(), RecordKind::kResult));
      EXPECT_LE(std::ssize(kinds), at - 1);
      EXPECT_TRUE(report.damage.ok()) << report.damage.message();
      EXPECT_TRUE(report.truncated);
      EXPECT_EQ(report.first_difference, "");
      EXPECT_GE(report.steps, last_steps);
      EXPECT_LE(report.steps_without_result, GetParam() ? 1 : 0);
      EXPECT_NE(log.find(report.steps == 0 ? std::string("none was")
                                           : StrCat("the file ends after step ", report.last_step, " (")),
                std::string::npos)
          << log;
    }
    last_steps = report.steps;
    std::filesystem::remove(path);
  }
  EXPECT_GT(last_steps, 10);
}

TEST(Record, WhatIsNoFileIsNeitherWrittenNorToBeRemoved) {
  const auto full = Recorder::Create("/dev/full");
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.status().param(), "--record");
  EXPECT_NE(full.status().message().find("--record /dev/full"), std::string::npos);
  EXPECT_EQ(full.status().message().find("remove"), std::string::npos) << full.status().message();
  EXPECT_NE(full.status().message().find("give a new file"), std::string::npos) << full.status().message();
}

TEST(Record, FactsThatMustMatchAndThoseThatMay) {
  const std::vector<RecordFact> recorded = {{"model", "a"}, {"build", "1", false}};
  EXPECT_TRUE(CompareFacts(recorded, recorded)->empty());
  const auto build = CompareFacts(recorded, {{"model", "a"}, {"build", "2", false}});
  ASSERT_TRUE(build.ok());
  EXPECT_EQ(build->size(), 1u);
  for (const auto& here :
       {std::vector<RecordFact>{{"model", "b"}, {"build", "1", false}}, std::vector<RecordFact>{}}) {
    const auto model = CompareFacts(recorded, here);
    ASSERT_FALSE(model.ok());
    EXPECT_NE(model.status().message().find("a when recorded"), std::string::npos);
  }
}

TEST(Record, HeadersOfOthers) {
  RecordHeader header = Header(Options(true));
  StatusOr<RecordHeader> read = ReadHeader(HeaderPayload(header));
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(read->facts, header.facts);
  EXPECT_EQ(WriteJson(read->model_flags), WriteJson(header.model_flags));
  EXPECT_EQ(read->options.num_kv_pages, 6);
  header.options.num_kv_pages = int64_t{1} << 40;
  read = ReadHeader(HeaderPayload(header));
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.status().message().find("num_kv_pages"), std::string::npos);
  EXPECT_FALSE(ReadHeader("").ok());
  EXPECT_FALSE(ReadHeader("\xff\xff\xff").ok());
}

}  // namespace
}  // namespace fd
