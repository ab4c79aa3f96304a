// Requests whose time is over, waiting or running, in both kinds of loop.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "engine/engine.h"
#include "engine/fake_model.h"

namespace fd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Outcome {
  size_t tokens = 0;
  bool ended = false;
  FinishReason reason = FinishReason::kStop;
  Status error;
  Clock::time_point at;
};

class Deadlines : public testing::TestWithParam<bool> {
 protected:
  Deadlines() : workspace_(Device{}, 1 << 16), threads_(1), probe_(std::make_shared<FakeModel::Probe>()) {
    options_.overlap = GetParam();
    options_.max_num_seqs = 1;
    options_.num_kv_pages = 40;
  }
  void Start() {
    ops::Context ctx;
    ctx.threads = &threads_;
    ctx.workspace = &workspace_;
    engine_ = std::make_unique<Engine>(std::make_unique<FakeModel>(probe_), ctx, options_);
    engine_->Start();
  }
  void Submit(RequestId id, int64_t max_tokens, std::optional<double> timeout_s = std::nullopt) {
    GenerateRequest r;
    r.id = id;
    r.token_ids = {3, 4, 5};
    r.sampling.temperature = 0;
    r.sampling.max_tokens = max_tokens;
    r.sampling.ignore_eos = true;
    if (timeout_s) {
      r.timeout_s = *timeout_s;
      r.deadline = r.arrived_at +
                   std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*timeout_s));
    }
    r.sink = [this](TokenEvent&& e) {
      std::lock_guard lock(mutex_);
      Outcome& o = outcomes_[e.request_id];
      EXPECT_FALSE(o.ended) << "an event after the last one";
      o.tokens += e.token_ids.size();
      o.ended = e.finish_reason.has_value();
      if (o.ended) o.reason = *e.finish_reason;
      o.error = e.error;
      o.at = Clock::now();
      changed_.notify_all();
    };
    ASSERT_TRUE(engine_->Submit(std::move(r)).ok());
  }
  template <typename Until>
  Outcome WaitFor(RequestId id, Until until) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(60), [&] { return until(outcomes_[id]); })) << id;
    return outcomes_[id];
  }
  Outcome End(RequestId id) {
    return WaitFor(id, [](const Outcome& o) { return o.ended; });
  }
  void ExpectIdle() {
    const auto until = Clock::now() + seconds(20);
    while (engine_->Stats().running + engine_->Stats().waiting > 0 && Clock::now() < until)
      std::this_thread::sleep_for(milliseconds(1));
    EXPECT_EQ(engine_->Stats().running + engine_->Stats().waiting, 0);
    EXPECT_EQ(engine_->Stats().used_pages, 0);
  }

  EngineOptions options_;
  Workspace workspace_;
  ThreadPool threads_;
  std::shared_ptr<FakeModel::Probe> probe_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Outcome> outcomes_;
  std::unique_ptr<Engine> engine_;
};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, Deadlines, testing::Bool());

TEST_P(Deadlines, ARunningRequestEndsAtItsTimeoutAndTheNextOneRuns) {
  probe_->sleep_us = 2000;
  Start();
  const auto begin = Clock::now();
  Submit(1, 2000, 0.3);
  Submit(2, 5);
  const Outcome slow = End(1);
  EXPECT_EQ(slow.reason, FinishReason::kError);
  EXPECT_EQ(slow.error.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(slow.error.param(), "timeout");
  EXPECT_NE(slow.error.message().find("timeout of 0.3 seconds"), std::string::npos) << slow.error.message();
  EXPECT_NE(slow.error.message().find("of at most 2000"), std::string::npos) << slow.error.message();
  EXPECT_GE(slow.at - begin, milliseconds(300));
  EXPECT_GT(slow.tokens, 0u);
  EXPECT_LT(slow.tokens, 2000u);
  EXPECT_EQ(End(2).tokens, 5u);
  ExpectIdle();
}

TEST_P(Deadlines, AWaitingRequestEndsAtItsTimeout) {
  probe_->sleep_us = 2000;
  Start();
  Submit(1, 500);
  Submit(2, 5, 0.05);
  const Outcome waiting = End(2);
  EXPECT_EQ(waiting.error.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting.tokens, 0u);
  EXPECT_FALSE(WaitFor(1, [](const Outcome& o) { return o.tokens > 0; }).ended);
  EXPECT_EQ(End(1).tokens, 500u);
  ExpectIdle();
}

TEST_P(Deadlines, WaitingTooLongInTheQueue) {
  options_.max_waiting_s = 0.1;
  probe_->sleep_us = 2000;
  Start();
  Submit(1, 400);  // runs for longer than anybody may wait
  WaitFor(1, [](const Outcome& o) { return o.tokens > 0; });
  Submit(2, 5);
  const Outcome waiting = End(2);
  EXPECT_EQ(waiting.error.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting.error.param(), "");
  EXPECT_NE(waiting.error.message().find("the limit is 0.1 (--max-waiting-time)"), std::string::npos)
      << waiting.error.message();
  const Outcome run = End(1);
  EXPECT_EQ(run.reason, FinishReason::kLength);
  EXPECT_EQ(run.tokens, 400u);
  ExpectIdle();
}

TEST_P(Deadlines, ATimeThatIsOverBeforeTheFirstStep) {
  Start();
  Submit(1, 5, 0);
  const Outcome late = End(1);
  EXPECT_EQ(late.error.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late.tokens, 0u);
  Submit(2, 5, 1000);
  EXPECT_EQ(End(2).tokens, 5u);
  ExpectIdle();
  EXPECT_EQ(engine_->Stats().prompt_tokens, 3);
}

// A time that ends long after its request must not keep an idle loop turning.
TEST_P(Deadlines, AnIdleLoopSleepsOverOldDeadlines) {
  Start();
  Submit(1, 3, 0.2);
  EXPECT_EQ(End(1).tokens, 3u);
  std::this_thread::sleep_for(milliseconds(400));
  const int64_t steps = engine_->Stats().steps;
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(engine_->Stats().steps, steps);
  Submit(2, 3);
  EXPECT_EQ(End(2).tokens, 3u);
}

// Among others at their own pace: who has no deadline gets what it gets alone.
TEST_P(Deadlines, OthersKeepTheirTokens) {
  options_.max_num_seqs = 4;
  probe_->sleep_us = 500;
  Start();
  for (RequestId id = 1; id <= 12; ++id) {
    Submit(id, id % 2 == 0 ? 60 : 1500,
           id % 2 == 0 ? std::nullopt : std::optional<double>(0.02 * static_cast<double>(id)));
  }
  for (RequestId id = 1; id <= 12; ++id) {
    const Outcome o = End(id);
    EXPECT_EQ(o.reason, id % 2 == 0 ? FinishReason::kLength : FinishReason::kError) << id;
    if (id % 2 == 0) {
      EXPECT_EQ(o.tokens, 60u);
    }
  }
  ExpectIdle();
}

}  // namespace
}  // namespace fd
