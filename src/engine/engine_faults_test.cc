// What goes wrong in and beside a step, in both kinds of loop: who is told, who goes on, what is given back.
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <map>
#include <mutex>

#include "base/fault.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace fd {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

struct Outcome {
  std::vector<int32_t> tokens;
  std::optional<FinishReason> reason;
  Status error;
};

class EngineFaults : public testing::TestWithParam<bool> {
 protected:
  EngineFaults() : workspace_(Device{}, 1 << 16), threads_(1) {
    options_.overlap = GetParam();
    options_.max_num_seqs = 2;
    options_.num_kv_pages = 40;
  }
  ~EngineFaults() override {
    engine_.reset();
    EXPECT_TRUE(SetFaults("").ok());
  }
  void Start(const std::string& faults) {
    ASSERT_TRUE(SetFaults(faults).ok());
    ops::Context ctx;
    ctx.threads = &threads_;
    ctx.workspace = &workspace_;
    engine_ = std::make_unique<Engine>(std::make_unique<FakeModel>(std::make_shared<FakeModel::Probe>()), ctx,
                                       options_);
    engine_->OnDeviceLost([this] { lost_.set_value(engine_->DeviceStatus()); });
  }
  Status Submit(RequestId id, int64_t max_tokens = 20) {
    GenerateRequest r;
    r.id = id;
    for (int64_t i = 0; i < 100; ++i) r.token_ids.push_back(static_cast<int32_t>(3 + (i * 7 + id) % 90));
    r.sampling.temperature = 0;
    r.sampling.max_tokens = max_tokens;
    r.sampling.ignore_eos = true;
    r.sink = [this](TokenEvent&& e) {
      std::lock_guard lock(mutex_);
      Outcome& o = outcomes_[e.request_id];
      EXPECT_FALSE(o.reason) << "an event after the last one";
      o.tokens.insert(o.tokens.end(), e.token_ids.begin(), e.token_ids.end());
      o.reason = e.finish_reason;
      o.error = e.error;
      changed_.notify_all();
    };
    return engine_->Submit(std::move(r));
  }
  Outcome Wait(RequestId id) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(60), [&] { return outcomes_[id].reason.has_value(); })) << id;
    return outcomes_[id];
  }
  void ExpectIdle() {
    const auto deadline = Clock::now() + seconds(10);
    while (engine_->Stats().used_pages > 0 && Clock::now() < deadline)
      std::this_thread::sleep_for(milliseconds(1));
    const EngineStats stats = engine_->Stats();
    EXPECT_EQ(stats.running + stats.waiting, 0);
    EXPECT_EQ(stats.free_pages + stats.cached_pages, stats.total_pages);
  }

  Workspace workspace_;
  ThreadPool threads_;
  EngineOptions options_;
  std::promise<Status> lost_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, Outcome> outcomes_;
  std::unique_ptr<Engine> engine_;
};
INSTANTIATE_TEST_SUITE_P(PlainAndOverlapped, EngineFaults, testing::Bool());

TEST_P(EngineFaults, AStepWithoutMemoryEndsItsRequestsAndNobodyElse) {
  Start("");
  engine_->Start();
  for (RequestId id : {1, 2, 3}) ASSERT_TRUE(Submit(id).ok());
  std::map<RequestId, std::vector<int32_t>> clean;
  for (RequestId id : {1, 2, 3}) clean[id] = Wait(id).tokens;
  engine_.reset();
  outcomes_.clear();

  Start("step_alloc@at=5");
  for (RequestId id : {1, 2, 3}) ASSERT_TRUE(Submit(id).ok());  // the third one waits
  engine_->Start();
  for (RequestId id : {1, 2}) {
    const Outcome o = Wait(id);
    EXPECT_EQ(o.reason, FinishReason::kError);
    EXPECT_EQ(o.error.code(), StatusCode::kUnavailable);
    EXPECT_NE(o.error.message().find("no memory"), std::string::npos) << o.error.message();
    EXPECT_TRUE(std::equal(o.tokens.begin(), o.tokens.end(), clean[id].begin()));
    EXPECT_LT(o.tokens.size(), 20u);
  }
  EXPECT_EQ(Wait(3).tokens, clean[3]);
  for (RequestId id : {11, 12}) ASSERT_TRUE(Submit(id).ok());  // and the engine lives
  for (RequestId id : {11, 12}) EXPECT_EQ(Wait(id).tokens.size(), 20u);
  ExpectIdle();
  EXPECT_TRUE(engine_->DeviceStatus().ok());
}

TEST_P(EngineFaults, ALoopWithoutMemoryTellsEverybodyAndEnds) {
  Start("plan_alloc@at=5");
  for (RequestId id : {1, 2, 3}) ASSERT_TRUE(Submit(id, 1500).ok());
  engine_->Start();
  for (RequestId id : {1, 2, 3}) {
    const Outcome o = Wait(id);
    EXPECT_EQ(o.reason, FinishReason::kError);
    EXPECT_EQ(o.error.code(), StatusCode::kUnavailable);
    EXPECT_NE(o.error.message().find("no memory"), std::string::npos) << o.error.message();
  }
  EXPECT_EQ(lost_.get_future().get().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Submit(4).code(), StatusCode::kUnavailable);
  EXPECT_FALSE(engine_->stuck());
  engine_->Drain(Clock::now() + seconds(5));  // nobody is left to wait for
}

TEST_P(EngineFaults, AStepThatFindsItsScratchTakenComputesTheSame) {
  Start("");
  engine_->Start();
  ASSERT_TRUE(Submit(1).ok());
  const std::vector<int32_t> clean = Wait(1).tokens;
  engine_.reset();
  outcomes_.clear();
  Start("scratch_overflow@times=0");
  engine_->Start();
  ASSERT_TRUE(Submit(1).ok());
  EXPECT_EQ(Wait(1).tokens, clean);
  ExpectIdle();
}

TEST_P(EngineFaults, AStuckStepIsSeenFromOutside) {
  options_.step_timeout_s = 0.3;
  Start("slow_step@at=3,times=1,ms=1500");
  ASSERT_TRUE(Submit(1, 500).ok());
  ASSERT_TRUE(Submit(2, 500).ok());
  engine_->Start();
  const Status why = lost_.get_future().get();  // while the step still runs
  EXPECT_EQ(why.code(), StatusCode::kUnavailable);
  EXPECT_NE(why.message().find("--step-timeout"), std::string::npos) << why.message();
  EXPECT_TRUE(engine_->stuck());
  EXPECT_EQ(Submit(3).code(), StatusCode::kUnavailable);
  EXPECT_EQ(engine_->Stats().slow_steps, 1);
}

TEST_P(EngineFaults, ASlowStepIsOnlyTold) {
  options_.step_timeout_s = 8;
  Start("slow_step@at=3,times=1,ms=3000");
  engine_->Start();
  ASSERT_TRUE(Submit(1).ok());
  EXPECT_EQ(Wait(1).tokens.size(), 20u);
  EXPECT_EQ(engine_->Stats().slow_steps, 1);
  EXPECT_TRUE(engine_->DeviceStatus().ok());
  ExpectIdle();
}

// A deadline is kept by a loop that hangs in a step as soon as that step ends: within one step.
TEST_P(EngineFaults, DeadlinesHoldAcrossSlowSteps) {
  Start("slow_step@ms=100");
  engine_->Start();
  GenerateRequest r;
  r.id = 1;
  r.token_ids = {3, 4, 5};
  r.sampling.max_tokens = 1000;
  r.sampling.ignore_eos = true;
  r.timeout_s = 0.35;
  r.deadline = Clock::now() + milliseconds(350);
  std::promise<Clock::time_point> ended;
  r.sink = [&ended](TokenEvent&& e) {
    if (!e.finish_reason) return;
    EXPECT_EQ(e.error.code(), StatusCode::kDeadlineExceeded);
    ended.set_value(Clock::now());
  };
  const auto begin = Clock::now();
  ASSERT_TRUE(engine_->Submit(std::move(r)).ok());
  const auto took = ended.get_future().get() - begin;
  EXPECT_GE(took, milliseconds(350));
  EXPECT_LT(took, milliseconds(350 + 100 * 3 + 2000));  // the machine does other things
  ExpectIdle();
}

}  // namespace
}  // namespace fd
