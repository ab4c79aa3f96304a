#include "engine/executor/executor.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "compute/ops/rows.h"
#include "compute/ops/sample.h"
#include "compute/tensor/device_error.h"

namespace fd {
namespace {

// Steps that fail or wait on purpose (base/fault.h).
void PassStepFaults(const ops::Context& ctx) {
  FaultDelay(Fault::kSlowStep);
  FaultBadAlloc(Fault::kStepAlloc);
  if (FaultHits(Fault::kDeviceError)) ops::InjectFault(ctx);
  // Nobody gives it back before the step has ended, so whatever the step takes is beyond the plan.
  if (FaultHits(Fault::kScratchOverflow))
    ctx.workspace->Take(DType::kUInt8, {ctx.workspace->capacity_bytes()});
}

}  // namespace

int64_t ExecutorBytes(const ModelConfig& config, DType dtype, const EngineOptions& options) {
  const int64_t seqs = options.MaxStepSequences();
  int64_t bytes = StepInputs::DeviceBytes(options);
  bytes +=
      Arena::PaddedBytes(options.MaxStepOutputs() * config.OutputFeatures() * DTypeBytes(DType::kFloat32));
  bytes += Arena::PaddedBytes(2 * seqs * DTypeBytes(DType::kInt32));
  bytes += options.pooling == PoolingType::kNone
               ? ControlledSampler::DeviceBytes(config, options) + PromptScorer::DeviceBytes(options)
               : Pooler::DeviceBytes(config, options);
  if (config.vision) {
    bytes += Arena::PaddedBytes(options.max_num_batched_tokens * config.hidden_size * DTypeBytes(dtype));
  }
  return bytes;
}

int64_t SampleStepScratchBytes(const ops::Context& ctx, const ModelConfig& config,
                               const EngineOptions& options) {
  return options.pooling == PoolingType::kNone ? ControlledSampler::ScratchBytes(ctx, config, options) : 0;
}

int64_t EncoderSlabBytes(const ModelConfig& config, DType dtype, const EngineOptions& options) {
  return EncoderSlab::DeviceBytes(config, dtype, options);
}

int64_t EncodeStepScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType dtype,
                               const EngineOptions& options) {
  if (!config.vision || options.max_media_tokens == 0) return 0;
  // No frame has more patches than the largest picture.
  const int64_t patches = options.MaxEncodePatches();
  return EncoderSlab::ScratchBytes(config, dtype, patches, patches / 4) +
         EncodeScratchBytes(ctx, config, dtype, patches, 4 * options.max_media_tokens);
}

std::vector<int64_t> DecodeGraphRows(const EngineOptions& options) {
  const int64_t most = options.MaxStepSequences();
  std::vector<int64_t> rows;
  for (int64_t n = 1; n < most; n = n < 8 ? 2 * n : n + 8) rows.push_back(n);
  rows.push_back(most);
  return rows;
}

Executor::Executor(Model& model, const ops::Context& ctx, const EngineOptions& options)
    : model_(model),
      ctx_(ctx),
      options_(options),
      valid_vocab_(options.sampled_vocab_size > 0
                       ? std::min(options.sampled_vocab_size, model.config().vocab_size)
                       : model.config().vocab_size),
      kv_(MakeKvStorage(model.config(), options.kv_dtype.value_or(model.dtype()), ctx, options.num_kv_pages)),
      page_mover_(ctx, kv_, options.num_host_pages),
      inputs_(ctx, options, kSlots),
      encoder_slab_(model, ctx, options) {
  page_move_ms_.in = std::max(options.page_in_ms, 0.0);
  const ModelConfig& config = model.config();
  const int64_t seqs = options.MaxStepSequences();
  const bool pools = options.pooling != PoolingType::kNone;
  FD_CHECK(config.has_head != pools, "an engine pools exactly when its model has no head");
  if (pools) {
    pooler_.emplace(ctx, config, options);
  } else {
    controls_.emplace(ctx, config, options, kSlots);
    prompt_scorer_.emplace(ctx, options, kSlots, valid_vocab_);
  }
  if (config.vision) {
    media_embeddings_ =
        ops::NewTensor(ctx, model.dtype(), {options.max_num_batched_tokens, config.hidden_size});
  }
  logits_ = ops::NewTensor(ctx, DType::kFloat32, {options.MaxStepOutputs(), config.OutputFeatures()});
  results_ = ops::NewTensor(ctx, DType::kInt32, {2, seqs});
  for (int i = 0; i < kSlots; ++i) {
    slots_.emplace_back();
    slots_.back().results = Tensor::Staging(ctx.device, DType::kInt32, {2, seqs});
    if (pools) {
      slots_.back().embeddings = Pooler::HostResults(ctx, config, options);
    } else {
      slots_.back().top_results = ControlledSampler::HostResults(ctx, options);
    }
    Slot& slot = slots_.back();
    for (ops::Event* event :
         {&slot.begin, &slot.end, &slot.done, &slot.encode_begin, &slot.encode_end, &slot.mark})
      *event = ops::Event(ctx);
  }
}

Executor::~Executor() {
  while (!in_flight_.empty()) Wait();
}

Status Executor::Prepare() {
  try {
    ops::UseDevice(ctx_);
    if (options_.page_in_ms < 0) page_move_ms_ = page_mover_.Measure(ctx_);
  } catch (const std::exception& e) {
    return StatusOf("moving pages to the host and back", 0, e);
  }
  if (pooler_ || !options_.cuda_graphs || !ops::HasGraphs(ctx_)) return OkStatus();
  try {
    ops::UseDevice(ctx_);
    for (const int64_t rows : DecodeGraphRows(options_)) {
      inputs_.Upload(ctx_, StepPlan{}, 0, rows);
      Compute();  // what is chosen or loaded at first use must not be recorded
      graphs_.push_back({rows, ops::Graph(ctx_, [&] { Compute(); })});
      ops::Synchronize(ctx_);  // the next one writes the same host buffer
    }
  } catch (const std::exception& e) {
    return StatusOf("recording decode steps", 0, e);
  }
  return OkStatus();
}

const Executor::DecodeGraph* Executor::GraphFor(const StepPlan& plan) const {
  const auto sequences = static_cast<int64_t>(plan.sequences.size());
  if (graphs_.empty() || plan.num_tokens != sequences || plan.num_outputs != sequences) return nullptr;
  if (!plan.encodes.empty()) return nullptr;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.media.empty() || std::count(s.vision_expert.begin(), s.vision_expert.end(), 1) > 0) return nullptr;
  }
  for (const DecodeGraph& g : graphs_) {
    if (g.rows >= sequences) return &g;
  }
  return nullptr;
}

Status Executor::StatusOf(const char* doing, int64_t step, const std::exception& error) {
  const std::string what = step > 0 ? StrCat(doing, " ", step) : std::string(doing);
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return Unavailable(StrCat("the server has no memory left: ", what, " got none; try again later"));
  }
  if (dynamic_cast<const DeviceError*>(&error) == nullptr) {
    return Internal(StrCat(what, " failed: ", error.what()));
  }
  device_lost_ = true;
  return Unavailable(StrCat("the device is lost: ", what, " failed: ", error.what()));
}

void Executor::Launch(const StepPlan& plan, double mark_share) {
  if (plan.sequences.empty()) return;
  FD_CHECK_LT(in_flight(), kSlots - 1, "too many steps in flight");
  const int index = std::exchange(next_slot_, (next_slot_ + 1) % kSlots);
  Slot& slot = slots_[static_cast<size_t>(index)];
  slot.step = plan.step;
  slot.status = OkStatus();
  slot.requests.clear();
  slot.top_counts.clear();
  slot.encodes = !plan.encodes.empty();
  slot.encode_host_ms = 0;
  slot.marked = false;
  slot.divisors.clear();
  for (const SequenceStep& s : plan.sequences) {
    if (!s.samples) continue;
    slot.requests.push_back(s.request_id);
    if (pooler_) slot.divisors.push_back(options_.pooling == PoolingType::kMean ? s.context_tokens : 1);
  }
  if (ControlledSampler::WantsTopLogprobs(plan)) {
    for (const SequenceStep& s : plan.sequences) {
      if (s.samples) slot.top_counts.push_back(s.controls ? std::max(s.controls->top_logprobs, 0) : 0);
    }
  }
  in_flight_.push_back(index);
  try {
    Run(plan, slot, index, mark_share);
  } catch (const std::exception& e) {
    slot.status = StatusOf("step", plan.step, e);
  }
}

void Executor::WaitForMark() {
  if (in_flight_.empty()) return;
  const Slot& slot = slots_[static_cast<size_t>(in_flight_.back())];
  if (!slot.marked || !slot.status.ok()) return;
  try {
    slot.mark.Wait();
  } catch (const DeviceError&) {  // Wait says so
  }
}

void Executor::Encode(const StepPlan& plan, Slot& slot) {
  if (plan.encodes.empty()) return;
  slot.encode_begin.Record(ctx_);
  const Clock::time_point begin = Clock::now();
  encoder_slab_.Encode(ctx_, model_, plan.encodes);
  if (ctx_.device.type == DeviceType::kCpu)
    slot.encode_host_ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  slot.encode_end.Record(ctx_);
}

// Rows of the step that are pictures get the encoder's output.
void Executor::PlaceMedia(const StepPlan& plan) {
  int64_t media_row = 0;
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      ops::Copy(ctx_, media_embeddings_.view().Rows(media_row, slice.count), encoder_slab_.Rows(slice));
      media_row += slice.count;
    }
  }
  if (media_row > 0) inputs_.batch().media_embeddings = media_embeddings_.view().Rows(0, media_row);
}

// Everything between the inputs and the drawn tokens, on the device alone.
// samples: else the logits are left for SampleWithControls.
void Executor::Compute(bool samples) {
  ForwardBatch& batch = inputs_.batch();
  const int64_t outputs = inputs_.num_outputs();
  ops::TakeDrawnTokens(ctx_, batch.token_ids, inputs_.token_sources(), Drawn());
  const TensorView logits = logits_.view().Rows(0, outputs);
  model_.Forward(ctx_, logits, batch, kv_);
  if (outputs == 0 || !samples) return;
  ops::Sample(ctx_, Drawn().Rows(0, outputs), Logprobs().Rows(0, outputs), logits, inputs_.sample_params(),
              valid_vocab_);
}

// The same where the engine pools: last hidden states, and the vectors of who ends.
void Executor::Pool(Slot& slot) {
  ForwardBatch& batch = inputs_.batch();
  const TensorView hidden = logits_.view().Rows(0, batch.logits_rows.NumElements());
  model_.Forward(ctx_, hidden, batch, kv_);
  pooler_->Pool(ctx_, hidden, inputs_, slot.embeddings);
}

TensorView Executor::Drawn() const {
  const int64_t seqs = logits_.view().dim(0);
  return results_.view().Reshape({2 * seqs}).Rows(0, seqs);
}

TensorView Executor::Logprobs() const {
  const int64_t seqs = logits_.view().dim(0);
  TensorView logprobs = results_.view().Reshape({2 * seqs}).Rows(seqs, seqs);
  logprobs.dtype = DType::kFloat32;
  return logprobs;
}

// After the logits of the step's sequences are there. sampled: tokens were drawn from them as they are, as a
// recorded step does; then that stands unless somebody edits them.
void Executor::SampleWithControls(const StepPlan& plan, int index, bool sampled) {
  if (plan.num_outputs == 0) return;
  if (!ControlledSampler::EditsLogits(plan) && !ControlledSampler::WantsTopLogprobs(plan) &&
      !controls_->WantsScores(plan)) {
    FD_CHECK(sampled, "a step that draws nothing");
    return;
  }
  const int64_t outputs = plan.num_outputs;
  const ops::SampleParams& all = inputs_.sample_params();
  const ops::SampleParams params = {all.temperature.Rows(0, outputs), all.top_k.Rows(0, outputs),
                                    all.top_p.Rows(0, outputs),       all.min_p.Rows(0, outputs),
                                    all.seed.Rows(0, outputs),        all.position.Rows(0, outputs)};
  const ControlledSampler::Rows rows = {logits_.view().Rows(0, outputs),
                                        Drawn().Rows(0, outputs),
                                        Logprobs().Rows(0, outputs),
                                        inputs_.batch().token_ids,
                                        inputs_.batch().logits_rows.Rows(0, outputs),
                                        params};
  controls_->Upload(ctx_, plan, index);
  controls_->Sample(ctx_, plan, rows, valid_vocab_);
  if (!slots_[static_cast<size_t>(index)].top_counts.empty())
    ops::Copy(ctx_, slots_[static_cast<size_t>(index)].top_results, controls_->top_results());
}

void Executor::Run(const StepPlan& plan, Slot& slot, int index, double mark_share) {
  if (device_lost_) throw DeviceError("an earlier step lost it");
  ops::UseDevice(ctx_);
  ctx_.workspace->Reset();                  // a step that failed may have left something
  if (plan.step > 0) PassStepFaults(ctx_);  // not those that are measured at start

  if (const DecodeGraph* decode = GraphFor(plan)) {
    inputs_.Upload(ctx_, plan, index, decode->rows);
    slot.begin.Record(ctx_);
    page_mover_.Move(ctx_, plan.page_moves);
    decode->graph.Launch(ctx_);
    controls_->Enter(ctx_, plan, inputs_.batch().token_ids, index);
    SampleWithControls(plan, index, true);
  } else {
    inputs_.Upload(ctx_, plan, index);
    if (prompt_scorer_) prompt_scorer_->Upload(ctx_, plan, index, inputs_.batch());
    inputs_.batch().mark_share = mark_share;
    inputs_.batch().on_mark = [this, &slot] {
      slot.mark.Record(ctx_);
      slot.marked = true;
    };
    slot.begin.Record(ctx_);
    page_mover_.Move(ctx_, plan.page_moves);
    Encode(plan, slot);
    PlaceMedia(plan);
    if (pooler_) {
      Pool(slot);
    } else {
      const bool edits = ControlledSampler::EditsLogits(plan);
      Compute(!edits);
      controls_->Enter(ctx_, plan, inputs_.batch().token_ids, index);
      SampleWithControls(plan, index, !edits);
      prompt_scorer_->Download(ctx_, index);
    }
  }
  slot.end.Record(ctx_);
  if (const int64_t overflows = ctx_.workspace->overflows(); overflows > workspace_overflows_) {
    workspace_overflows_ = overflows;
    LogWarning("step ", plan.step, " took ", ctx_.workspace->peak_bytes(), " bytes of scratch, ",
               ctx_.workspace->capacity_bytes(), " were planned; the rest was allocated");
  }
  if (!slot.requests.empty() && !pooler_) ops::Copy(ctx_, slot.results, results_);
  slot.done.Record(ctx_);
}

StepResult Executor::Wait() {
  FD_CHECK(!in_flight_.empty(), "no step in flight");
  const int index = in_flight_.front();
  in_flight_.pop_front();
  Slot& slot = slots_[static_cast<size_t>(index)];
  StepResult result;
  result.step = slot.step;
  try {
    if (slot.status.ok()) {
      slot.done.Wait();
      result.device_ms = ops::Event::MillisecondsBetween(slot.begin, slot.end);
      if (slot.encodes) {
        result.encode_ms =
            slot.encode_host_ms + ops::Event::MillisecondsBetween(slot.encode_begin, slot.encode_end);
      }
      if (ended_slot_ >= 0 && ended_step_ + 1 == slot.step) {
        result.device_idle_ms =
            ops::Event::MillisecondsBetween(slots_[static_cast<size_t>(ended_slot_)].end, slot.begin);
      }
    }
  } catch (const std::exception& e) {
    slot.status = StatusOf("step", slot.step, e);
  }
  ended_slot_ = slot.status.ok() ? index : -1;
  ended_step_ = slot.step;
  result.status = slot.status;
  result.device_lost = device_lost_ && !slot.status.ok();
  if (!result.status.ok()) return result;
  for (size_t row = 0; row < slot.divisors.size(); ++row) {
    const TensorView vector = slot.embeddings.view().Rows(static_cast<int64_t>(row), 1);
    StepResult::Token& token = result.tokens.emplace_back();
    token.request_id = slot.requests[row];
    token.embedding.assign(vector.As<float>(), vector.As<float>() + vector.NumElements());
    const auto divisor = static_cast<float>(slot.divisors[row]);
    for (float& value : token.embedding) value /= divisor;
  }
  if (pooler_) return result;
  result.scores = prompt_scorer_->Take(index);
  const int64_t seqs = slot.results.view().dim(1);
  const int32_t* words = slot.results.view().As<int32_t>();
  for (size_t row = 0; row < slot.requests.size(); ++row) {
    float logprob;
    std::memcpy(&logprob, words + seqs + static_cast<int64_t>(row), sizeof(logprob));
    result.tokens.push_back({slot.requests[row], words[row], logprob, {}});
    if (row < slot.top_counts.size() && slot.top_counts[row] > 0) {
      result.tokens.back().top_logprobs =
          ControlledSampler::TopOf(slot.top_results, static_cast<int64_t>(row), slot.top_counts[row]);
    }
  }
  return result;
}

}  // namespace fd
