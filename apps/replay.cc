// fastdeploy replay FILE: the steps of a record once more, and whether they draw the same.
#include <cinttypes>
#include <cstdio>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "command.h"
#include "engine/record/record_file.h"
#include "engine/record/replay.h"
#include "flag_set.h"
#include "loaded_model.h"
#include "model_flags.h"
#include "progress_bar.h"
#include "record_flags.h"

namespace fd {
namespace {

// A record may be replayed on another machine, or its model lie elsewhere: what is given here takes the place
// of the record's.
StatusOr<bool> ParseWithRecord(FlagSet& flags, const RecordReader& record,
                               const std::vector<std::string>& args_here, const JsonObject& given_here) {
  JsonObject recorded = record.header().model_flags;
  for (const auto& [name, value] : given_here) recorded.Erase(name);
  StatusOr<std::vector<std::string>> args = ArgsOf(recorded);
  if (!args.ok()) return args.status();
  args->insert(args->end(), args_here.begin(), args_here.end());
  return flags.Parse(*args);
}

void AddReplayFlags(FlagSet& flags, ModelFlags* values) { AddModelFlags(flags, values, true); }

constexpr const char* kUsage = "fastdeploy replay FILE [FLAGS]";
constexpr const char* kSummary =
    "Computes the steps that serve --record wrote once more and compares every drawn token and the bits of "
    "every log-probability; code 1 where one differs. Flags are the record's; those given here come first: "
    "--model where its folder lies elsewhere, --device.";

int Report(const ReplayReport& report) {
  std::printf("%" PRId64 " steps, %" PRId64 " tokens, %" PRId64 " differences\n", report.steps, report.tokens,
              report.differences);
  if (report.failed > 0)
    std::printf("%" PRId64 " steps had failed when they were recorded; they were run and not compared\n",
                report.failed);
  if (report.steps_without_result > 0)
    std::printf("%" PRId64 " steps at the end have no result in the record; they were run and not compared\n",
                report.steps_without_result);
  if (report.truncated) {
    std::printf("the record ends early, %s: whoever wrote it was killed, or the disk was full\n",
                report.steps > 0 ? StrCat("after step ", report.last_step).c_str() : "before a first result");
  }
  std::fflush(stdout);
  if (!report.damage.ok()) Failure("replay", report.damage);
  if (!report.first_difference.empty())
    std::printf("first difference: %s\n", report.first_difference.c_str());
  if (report.differences > 0 || !report.damage.ok()) return kExitFailure;
  std::printf(report.steps > 0 ? "every token and log-probability is the same, bit for bit\n"
                               : "no step was there to compare\n");
  return kExitOk;
}

}  // namespace

int RunReplay(const std::vector<std::string>& args) {
  ModelFlags values;
  // Once for the file's name, before the record's own flags are known.
  FlagSet first(kUsage, kSummary);
  AddReplayFlags(first, &values);
  StatusOr<bool> parsed = first.Parse(args);
  if (!parsed.ok()) return UsageError("replay", parsed.status());
  if (!*parsed) return kExitOk;
  if (first.words().size() != 1) {
    return UsageError("replay",
                      InvalidArgument("give one record, for example: fastdeploy replay steps.fdrec"));
  }
  auto record = RecordReader::Open(first.words()[0]);
  if (!record.ok()) return UsageError("replay", record.status());
  values = {};
  FlagSet flags(kUsage, kSummary);
  AddReplayFlags(flags, &values);
  parsed = ParseWithRecord(flags, **record, args, first.Given());
  if (!parsed.ok()) return UsageError("replay", parsed.status());

  const RecordHeader& header = (*record)->header();
  const auto accept = [&header](const std::vector<RecordFact>& facts) -> Status {
    FD_ASSIGN_OR_RETURN(const std::vector<std::string> others, CompareFacts(header.facts, facts));
    for (const std::string& other : others)
      std::printf("note: %s; tokens may differ for it\n", other.c_str());
    std::fflush(stdout);
    return OkStatus();
  };
  SetLogLevel(LogLevel::kWarning);
  ProgressBar loading("loading");
  StatusOr<std::unique_ptr<LoadedModel>> loaded = LoadExecutor(
      values, {header.options, accept}, [&](int64_t done, int64_t total) { loading.Update(done, total); });
  loading.Finish();
  if (!loaded.ok()) return UsageError("replay", loaded.status());
  const ReplayReport report = Replay(**record, *(*loaded)->executor, (*loaded)->model->config());
  return Report(report);
}

}  // namespace fd
