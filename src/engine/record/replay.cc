#include "engine/record/replay.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <deque>
#include <utility>

#include "base/strings.h"
#include "engine/plan/step_plan_io.h"
#include "engine/record/plan_check.h"

namespace fd {
namespace {

constexpr size_t kMaxInFlight = 2;  // as the engine

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }
bool Same(const TokenLogprob& a, const TokenLogprob& b) {
  return a.token_id == b.token_id && SameBits(a.logprob, b.logprob);
}
std::string Text(const TokenLogprob& t) {
  char bits[16];
  std::snprintf(bits, sizeof(bits), "%08x", std::bit_cast<uint32_t>(t.logprob));
  return StrCat("token ", t.token_id, " (", t.logprob, ", bits ", bits, ")");
}

// Where two lists of likeliest tokens part; "" where they do not.
std::string CompareTops(const std::vector<TokenLogprob>& recorded, const std::vector<TokenLogprob>& here) {
  for (size_t i = 0; i < std::min(recorded.size(), here.size()); ++i) {
    if (!Same(recorded[i], here[i]))
      return StrCat("likeliest ", i + 1, ": recorded ", Text(recorded[i]), ", here ", Text(here[i]));
  }
  if (recorded.size() == here.size()) return "";
  return StrCat(recorded.size(), " likeliest tokens were recorded, here there are ", here.size());
}

std::string CompareTokens(const StepResult::Token& recorded, const StepResult::Token& here) {
  const TokenLogprob a{recorded.token_id, recorded.logprob}, b{here.token_id, here.logprob};
  if (!Same(a, b)) return StrCat("recorded ", Text(a), ", here ", Text(b));
  if (std::string tops = CompareTops(recorded.top_logprobs, here.top_logprobs); !tops.empty()) return tops;
  if (recorded.embedding.size() != here.embedding.size())
    return StrCat(recorded.embedding.size(), " values were recorded, here there are ", here.embedding.size());
  for (size_t i = 0; i < recorded.embedding.size(); ++i) {
    if (!SameBits(recorded.embedding[i], here.embedding[i]))
      return StrCat("value ", i, ": recorded ", recorded.embedding[i], ", here ", here.embedding[i]);
  }
  return "";
}

std::string CompareScores(const PromptLogprob& recorded, const PromptLogprob& here) {
  const TokenLogprob a{recorded.token_id, recorded.logprob}, b{here.token_id, here.logprob};
  if (!Same(a, b)) return StrCat("recorded ", Text(a), ", here ", Text(b));
  if (recorded.rank != here.rank) return StrCat("recorded rank ", recorded.rank, ", here ", here.rank);
  return CompareTops(recorded.top, here.top);
}

// Counts what differs and keeps the first.
struct Differences {
  int64_t step;
  std::string first;
  int64_t count = 0;
  void Add(const std::string& where, const std::string& what) {
    if (what.empty()) return;
    ++count;
    if (first.empty()) first = StrCat("step ", step, where, ": ", what);
  }
};

}  // namespace

StatusOr<std::vector<std::string>> CompareFacts(const std::vector<RecordFact>& recorded,
                                                const std::vector<RecordFact>& here) {
  std::vector<std::string> others;
  const auto value_in = [](const std::vector<RecordFact>& facts, const std::string& name) {
    const auto found =
        std::find_if(facts.begin(), facts.end(), [&](const RecordFact& f) { return f.name == name; });
    return found == facts.end() ? std::string("not said") : found->value;
  };
  for (const RecordFact& fact : recorded) {
    const std::string value = value_in(here, fact.name);
    if (value == fact.value) continue;
    const std::string both = StrCat(fact.name, " is ", value, " here and was ", fact.value, " when recorded");
    if (fact.must_match)
      return InvalidArgument(StrCat(both, "; nothing was run: replay with what the record was made with"));
    others.push_back(both);
  }
  for (const RecordFact& fact : here) {
    if (value_in(recorded, fact.name) == "not said" && fact.value != "not said")
      others.push_back(StrCat(fact.name, " is ", fact.value, " here; the record does not say it"));
  }
  return others;
}

std::string CompareResults(const StepPlan& plan, const StepResult& recorded, const StepResult& here,
                           int64_t* tokens, int64_t* differences) {
  Differences found{plan.step, {}};
  const auto position_of = [&plan](RequestId id) {
    const auto s = std::find_if(plan.sequences.begin(), plan.sequences.end(),
                                [id](const SequenceStep& q) { return q.request_id == id; });
    return s == plan.sequences.end() ? int64_t{-1} : s->context_tokens;
  };
  if (recorded.tokens.size() != here.tokens.size())
    found.Add("", StrCat(recorded.tokens.size(), " tokens were recorded, here ", here.tokens.size(),
                         " were drawn"));
  for (size_t i = 0; i < std::min(recorded.tokens.size(), here.tokens.size()); ++i) {
    const StepResult::Token &a = recorded.tokens[i], &b = here.tokens[i];
    const std::string where = StrCat(", request ", b.request_id, ", position ", position_of(b.request_id));
    found.Add(where, a.request_id != b.request_id ? StrCat("request ", a.request_id, " was recorded")
                                                  : CompareTokens(a, b));
    ++*tokens;
  }
  if (recorded.scores.size() != here.scores.size())
    found.Add("", StrCat("scores of ", recorded.scores.size(), " prompts were recorded, here of ",
                         here.scores.size()));
  for (size_t i = 0; i < std::min(recorded.scores.size(), here.scores.size()); ++i) {
    const StepResult::Scores &a = recorded.scores[i], &b = here.scores[i];
    const std::string where = StrCat(", request ", b.request_id);
    if (a.request_id != b.request_id || a.prompt_logprobs.size() != b.prompt_logprobs.size()) {
      found.Add(where, StrCat(a.prompt_logprobs.size(), " scores of request ", a.request_id,
                              " were recorded, here there are ", b.prompt_logprobs.size()));
      continue;
    }
    for (size_t k = 0; k < a.prompt_logprobs.size(); ++k) {
      found.Add(StrCat(where, ", scored prompt token ", k, " of the chunk"),
                CompareScores(a.prompt_logprobs[k], b.prompt_logprobs[k]));
      ++*tokens;
    }
  }
  *differences += found.count;
  return found.first;
}

ReplayReport Replay(RecordReader& record, Executor& executor, const ModelConfig& config,
                    const std::function<void(int64_t done_bytes, int64_t total_bytes)>& progress) {
  ReplayReport report;
  const EngineOptions& options = record.header().options;
  PlanReader plans(options, [&record](const Hash128& hash) { return record.MediaOf(hash); });
  std::deque<StepPlan> in_flight;
  int64_t previous_outputs = 0;
  const auto note = [&report](std::string difference) {
    if (!difference.empty() && report.first_difference.empty())
      report.first_difference = std::move(difference);
  };
  const auto launch = [&](std::string_view payload) -> Status {
    FD_ASSIGN_OR_RETURN(StepPlan plan, plans.Read(payload));
    FD_RETURN_IF_ERROR(CheckPlan(plan, previous_outputs, config, options));
    if (in_flight.size() == kMaxInFlight) return InvalidArgument("a third step in flight");
    previous_outputs = plan.num_outputs;
    executor.Launch(plan);
    in_flight.push_back(std::move(plan));
    return OkStatus();
  };
  const auto compare = [&](std::string_view payload) -> Status {
    FD_ASSIGN_OR_RETURN(const StepResult recorded, ReadResult(payload));
    if (in_flight.empty() || in_flight.front().step != recorded.step)
      return InvalidArgument(StrCat("the result of step ", recorded.step, ", which was not launched"));
    const StepPlan plan = std::move(in_flight.front());
    in_flight.pop_front();
    const StepResult here = executor.Wait();
    ++report.steps;
    report.last_step = recorded.step;
    if (!recorded.status.ok()) {  // whatever it left, later plans do not read it
      ++report.failed;
    } else if (!here.status.ok()) {
      ++report.differences;
      note(StrCat("step ", plan.step, " fails here: ", here.status.message()));
    } else {
      note(CompareResults(plan, recorded, here, &report.tokens, &report.differences));
    }
    return OkStatus();
  };
  while (report.damage.ok()) {
    auto next = record.Next();
    if (!next.ok()) {
      report.damage = next.status();
      break;
    }
    if (!*next) break;
    const Status status =
        (*next)->kind == RecordKind::kPlan ? launch((*next)->payload) : compare((*next)->payload);
    if (!status.ok())
      report.damage = status.WithContext(StrCat("the record before byte ", record.offset(), " is wrong"));
    if (progress) progress(record.offset(), record.file_bytes());
  }
  report.steps_without_result = std::ssize(in_flight);
  for (; !in_flight.empty(); in_flight.pop_front()) executor.Wait();
  report.truncated = record.truncated();
  return report;
}

}  // namespace fd
