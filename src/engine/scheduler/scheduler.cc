#include "engine/scheduler/scheduler.h"

#include <algorithm>
#include <limits>
#include <span>
#include <tuple>

#include "base/check.h"
#include "engine/scheduler/controls.h"

namespace fd {
namespace {

// Tokens [begin, begin + count) of `sequence` as one sequence's part of a step; pictures are the caller's.
SequenceStep MakeSequenceStep(const Sequence& sequence, int64_t begin, int64_t count) {
  const GenerateRequest& request = sequence.request;
  const int64_t end = begin + count, prompt = sequence.prompt_tokens;
  SequenceStep step;
  step.request_id = request.id;
  const int64_t known = std::min(end, static_cast<int64_t>(sequence.tokens.size()));
  step.token_ids.assign(sequence.tokens.begin() + begin, sequence.tokens.begin() + known);
  if (known < end) {
    FD_CHECK_EQ(end - known, 1, "more than one token is unknown");
    const int32_t forced = sequence.ForcedToken(known - prompt);
    step.token_ids.push_back(std::max(forced, 0));
    step.last_token_from_row = forced >= 0 ? -1 : sequence.pending_row;
  }
  step.positions.resize(3 * count);
  for (int64_t axis = 0; axis < 3; ++axis) {
    int32_t* out = step.positions.data() + axis * count;
    for (int64_t n = begin; n < end; ++n) {
      if (n >= prompt) {
        out[n - begin] = static_cast<int32_t>(n + request.position_delta);
      } else if (request.positions.empty()) {
        out[n - begin] = static_cast<int32_t>(n);
      } else {
        out[n - begin] = request.positions[axis * prompt + n];
      }
    }
  }
  if (!request.vision_expert.empty() && begin < prompt) {
    step.vision_expert.assign(count, 0);  // what was generated is text
    std::copy(request.vision_expert.begin() + begin, request.vision_expert.begin() + std::min(end, prompt),
              step.vision_expert.begin());
  }
  step.context_tokens = end;
  step.block_table.assign(sequence.block_table.begin(), sequence.block_table.begin() + PagesForTokens(end));
  step.samples = end == sequence.num_tokens() && request.sampling.max_tokens > 0;
  if (step.samples) {
    step.temperature = request.sampling.temperature;
    step.top_k = request.sampling.top_k;
    step.top_p = request.sampling.top_p;
    step.min_p = request.sampling.min_p;
    step.seed = request.sampling.seed;
    step.sample_position = end;
  }
  return step;
}

Status CheckInputFits(int64_t tokens, const EngineOptions& options) {
  if (tokens < 1) return InvalidArgument("the input has no tokens: send at least one", "input");
  const int64_t limit = options.MaxSequenceTokens();
  if (tokens <= limit) return OkStatus();
  const bool by_length = limit == options.max_model_len;
  return InvalidArgument(
      StrCat("the input has ", tokens, " tokens, but ",
             by_length ? std::string("--max-model-len")
                       : StrCat("the key/value cache (--num-kv-pages ", options.num_kv_pages, ")"),
             " is ", limit, " tokens: shorten the input or set truncate_prompt_tokens to at most ", limit),
      "input");
}

// What a page's chain hash follows on. All whole pages before it are hashed.
Hash128 HashBefore(const Sequence& sequence, int64_t page) {
  return page == 0 ? ChainRoot(sequence.request.cache_salt)
                   : sequence.page_hashes[static_cast<size_t>(page - 1)];
}

// Of its first `count` tokens.
PageContent ContentOfPage(const Sequence& sequence, int64_t page, int64_t count = kKvPageTokens) {
  return ContentOf(sequence.request, sequence.tokens, sequence.prompt_tokens, page * kKvPageTokens, count);
}

}  // namespace

Status CheckFits(int64_t prompt_tokens, int64_t max_tokens, const EngineOptions& options) {
  if (options.pooling != PoolingType::kNone) return CheckInputFits(prompt_tokens, options);
  if (prompt_tokens < 1) return InvalidArgument("the prompt has no tokens: send at least one", "prompt");
  if (max_tokens < 0) {
    return InvalidArgument(StrCat("max_tokens is ", max_tokens, "; it must not be negative, for example 256"),
                           "max_tokens");
  }
  auto refuse = [&](int64_t limit, const std::string& what) {
    if (prompt_tokens >= limit) {
      return InvalidArgument(StrCat("the prompt has ", prompt_tokens, " tokens, but ", what, " is ", limit,
                                    " tokens for prompt and output together: shorten the prompt"),
                             "messages");
    }
    return InvalidArgument(
        StrCat("the prompt has ", prompt_tokens, " tokens and max_tokens is ", max_tokens, ", ",
               prompt_tokens + max_tokens, " together, but ", what, " is ", limit,
               " tokens: shorten the prompt or set max_tokens to at most ", limit - prompt_tokens),
        "max_tokens");
  };
  // Compared without a sum, which a huge max_tokens could overflow.
  if (max_tokens > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(StrCat("max_tokens is ", max_tokens, ", but --max-model-len is ",
                                  options.max_model_len, " tokens for prompt and output together"),
                           "max_tokens");
  }
  if (max_tokens > options.max_model_len - prompt_tokens) {
    return refuse(options.max_model_len, "--max-model-len");
  }
  const int64_t pool_tokens = options.num_kv_pages * kKvPageTokens;
  if (max_tokens > pool_tokens - prompt_tokens) {
    return refuse(pool_tokens, StrCat("the key/value cache (--num-kv-pages ", options.num_kv_pages, ")"));
  }
  return OkStatus();
}

Scheduler::Scheduler(const EngineOptions& options, std::vector<int32_t> end_tokens)
    : options_(options),
      end_tokens_(std::move(end_tokens)),
      pages_(options.num_kv_pages),
      prefix_tree_(pages_, options.prefix_caching ? options.num_host_pages : 0),
      encoder_slots_(options.EncoderSlabTokens()),
      prefill_limit_(options.max_num_batched_tokens),
      long_prefill_limit_(options.max_num_batched_tokens) {
  FD_CHECK_GE(options.max_num_seqs, 1);
  FD_CHECK_GE(options.max_num_batched_tokens, 1);
  FD_CHECK_GE(options.max_long_partial_prefills, 1);
  running_.reserve(options.max_num_seqs);
  for (int64_t slot = options.MaxStepSequences(); slot-- > 0;) {
    free_seen_slots_.push_back(static_cast<int32_t>(slot));
  }
}

void Scheduler::SetPrefillLimits(int64_t tokens, int64_t long_tokens) {
  prefill_limit_ = std::max<int64_t>(tokens, 1);
  long_prefill_limit_ = std::max<int64_t>(long_tokens, 0);
}

void Scheduler::Add(GenerateRequest request) {
  auto sequence = std::make_unique<Sequence>();
  sequence->prompt_tokens = static_cast<int64_t>(request.token_ids.size());
  sequence->tokens = std::move(request.token_ids);
  sequence->request = std::move(request);
  sequence->rank_priority = sequence->request.priority;
  sequence->arrival = ++arrivals_;
  if (options_.pooling != PoolingType::kNone) {  // one output, then it ends
    sequence->request.sampling = {};
    sequence->request.sampling.max_tokens = 1;
  }
  FD_CHECK(CheckFits(sequence->prompt_tokens, sequence->request.sampling.max_tokens, options_).ok());
  FD_CHECK(by_id_.emplace(sequence->request.id, sequence.get()).second, "request id in use twice");
  HoldPrefix(*sequence);
  next_end_ = std::min(next_end_, EndOf(*sequence));
  waiting_.insert(std::lower_bound(waiting_.begin(), waiting_.end(), *sequence, RanksBefore),
                  std::move(sequence));
}

Sequence* Scheduler::Find(RequestId id) {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : it->second;
}

void Scheduler::Remove(RequestId id) {
  Sequence* sequence = Find(id);
  FD_CHECK(sequence != nullptr, "no sequence ", id);
  by_id_.erase(id);
  UnpinMedia(*sequence);
  FreeSeenSlot(*sequence);
  GivePagesBack(*sequence);
  const auto erase_from = [sequence](auto& list) {
    const auto it = std::lower_bound(list.begin(), list.end(), *sequence, RanksBefore);
    if (it == list.end() || it->get() != sequence) return false;
    list.erase(it);
    return true;
  };
  const bool had_run = sequence->scheduled_at != Clock::time_point{};
  if (erase_from(running_)) return;
  FD_CHECK(erase_from(waiting_), "a sequence that neither runs nor waits");
  if (had_run) --num_preempted_;
}

void Scheduler::Discard(RequestId id) {
  Sequence* sequence = Find(id);
  FD_CHECK(sequence != nullptr, "no sequence ", id);
  for (const int32_t page : sequence->block_table) prefix_tree_.Retract(page);
  sequence->computed_tokens = 0;  // nothing to publish
  Remove(id);
}

void Scheduler::ForgetComputed() {
  encoder_slots_.Clear();
  prefix_tree_.Clear();
}

StepPlan Scheduler::Schedule() {
  StepPlan plan;
  plan.step = ++step_;
  plan.begun_at = Clock::now();
  encoder_slots_.BeginStep();
  StepBudget budget;
  budget.tokens = options_.max_num_batched_tokens;
  budget.encode_tokens = options_.max_encoder_batch_tokens;
  budget.found_tokens = options_.max_model_len;
  MakeRoomForUrgent();
  const bool preempted = PlanDecodes(plan, budget);
  const int64_t held_back = std::max<int64_t>(budget.tokens - prefill_limit_, 0);
  budget.tokens -= held_back;
  budget.prefill_tokens = budget.tokens;
  PlanPrefills(plan, budget);
  // After a preemption the newcomer would take the very pages that were just missing.
  if (!preempted) AdmitWaiting(plan, budget);
  PlanLongPrefills(plan, budget);
  budget.tokens += held_back;
  plan.num_tokens = options_.max_num_batched_tokens - budget.tokens;
  if (options_.encoder_cache_tokens == 0) encoder_slots_.DropUnpinned();
  plan.encoder_kept_tokens = encoder_slots_.kept_tokens();
  // Not before: within a step nobody reads what another writes.
  for (const auto& sequence : running_) PublishPages(*sequence, /*with_tail=*/false);
  // A plan without sequences is not carried out, so its moves go with the next one.
  if (!plan.sequences.empty()) plan.page_moves = prefix_tree_.TakeMoves();
  return plan;
}

bool Scheduler::PlanDecodes(StepPlan& plan, StepBudget& budget) {
  bool preempted = false;
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& sequence = *running_[i];
    if (!sequence.IsDecode() || sequence.AwaitsLastToken()) continue;
    const int64_t missing =
        PagesForTokens(sequence.num_tokens()) - static_cast<int64_t>(sequence.block_table.size());
    // Whoever is preempted ranks not before this sequence, so it is not in the plan yet.
    while (i < running_.size() && !pages_.Allocate(missing, sequence.block_table)) {
      if (ReleaseHold(nullptr)) continue;
      PreemptLast(sequence.rank_priority);
      preempted = true;
    }
    if (i >= running_.size()) break;  // it was the last itself
    PlanChunk(sequence, MakeSequenceStep(sequence, sequence.computed_tokens, 1), plan, budget);
    ++plan.num_decodes;
  }
  return preempted;
}

// As much of the rest as there is budget for; nothing when it waits for the encoder or for room for the
// tokens that it found.
void Scheduler::PlanPrefill(Sequence& sequence, int64_t most_tokens, StepPlan& plan, StepBudget& budget) {
  const int64_t begin = sequence.computed_tokens;
  if (sequence.request.sampling.HasPenalties() && begin - sequence.seen_tokens > budget.found_tokens) return;
  std::vector<MediaSlice> slices;
  int64_t most = std::min(sequence.remaining_tokens(), most_tokens);
  if (options_.pooling == PoolingType::kCls) most = std::min<int64_t>(most, 1);  // no other token sees more
  const int64_t end = PlanMedia(sequence, begin + most, plan, budget, slices);
  if (end == begin) return;
  if (sequence.scheduled_at == Clock::time_point{}) sequence.scheduled_at = Clock::now();
  SequenceStep step = MakeSequenceStep(sequence, begin, end - begin);
  step.media = std::move(slices);
  PlanChunk(sequence, std::move(step), plan, budget);
}

void Scheduler::PlanChunk(Sequence& sequence, SequenceStep step, StepPlan& plan, StepBudget& budget) {
  const int64_t count = static_cast<int64_t>(step.token_ids.size());
  FD_CHECK_LE(count, budget.tokens, "a step beyond max_num_batched_tokens");
  budget.tokens -= count;
  if (options_.pooling == PoolingType::kNone) {
    PlanScores(sequence, step);
    step.controls =
        PlanControls(sequence, step.context_tokens - count, step.context_tokens, step.samples, end_tokens_);
    if (step.controls) budget.found_tokens -= std::ssize(step.controls->found_ids);
    FD_CHECK_GE(budget.found_tokens, 0, "more found tokens than a step can enter");
  } else {
    step.sum_slot = sequence.seen_slot;
    if (options_.pooling == PoolingType::kCls) step.samples = true;
  }
  plan.sequences.push_back(std::move(step));
  sequence.planned_step = step_;
  sequence.computed_tokens += count;
  if (!plan.sequences.back().samples) return;
  ++sequence.pending_tokens;
  sequence.pending_row = plan.num_outputs++;
}

// The pictures of a chunk from computed_tokens to `end` at most: rows for each, and where it enters. Returns
// where the chunk ends, which is before the first picture that has to wait.
int64_t Scheduler::PlanMedia(Sequence& sequence, int64_t end, StepPlan& plan, StepBudget& budget,
                             std::vector<MediaSlice>& slices) {
  const int64_t begin = sequence.computed_tokens;
  const auto& media = sequence.request.media;
  while (sequence.next_media < static_cast<int64_t>(media.size())) {
    const auto& item = media[static_cast<size_t>(sequence.next_media)];
    if (item->first_token >= end) break;
    const int64_t item_end = item->first_token + item->num_tokens;
    int64_t row = sequence.media_row;
    if (row >= 0) {  // its pin may end with this chunk, but not before the step has read it
      FD_CHECK(encoder_slots_.Use(item->content_hash) == row, "a pinned encoder output has moved");
    } else if (row = RowsFor(item, plan, budget); row < 0) {
      return std::max(begin, item->first_token);  // what was found may end inside the picture
    }
    const int64_t from = std::max(begin, item->first_token), to = std::min(end, item_end);
    slices.push_back({row, from - item->first_token, from - begin, to - from});
    if (item_end > end) {  // the next chunk goes on inside it
      if (sequence.media_row < 0) encoder_slots_.Pin(item->content_hash);
      sequence.media_row = row;
      break;
    }
    UnpinMedia(sequence);
    ++sequence.next_media;
  }
  return end;
}

// The rows of an item that a sequence begins: kept ones, or new ones and its encoding in this step; -1: it
// has to wait for a later step.
int64_t Scheduler::RowsFor(const std::shared_ptr<const MediaItem>& item, StepPlan& plan, StepBudget& budget) {
  if (budget.awaits_room) return -1;
  if (const auto row = encoder_slots_.Use(item->content_hash)) {
    ++plan.encoder_hits;
    plan.encoder_hit_tokens += item->num_tokens;
    return *row;
  }
  if (!plan.encodes.empty() && item->EncodeTokens() > budget.encode_tokens) return -1;
  const auto row = encoder_slots_.Allocate(item->content_hash, item->num_tokens);
  if (!row) {
    budget.awaits_room = true;
    return -1;
  }
  budget.encode_tokens -= item->EncodeTokens();
  plan.encodes.push_back({item, *row});
  plan.encode_tokens += item->num_tokens;
  return *row;
}

int32_t Scheduler::Append(Sequence& sequence, int32_t token_id) {
  FD_CHECK_GE(sequence.pending_tokens, 1, "a token that nobody waits for");
  const int32_t forced = sequence.ForcedToken(sequence.generated_tokens());
  sequence.tokens.push_back(forced >= 0 ? forced : token_id);
  --sequence.pending_tokens;
  return sequence.tokens.back();
}

// Log-probabilities of a prompt are taken and vectors of all or the first token are made as tokens pass
// through a step: of these none may be left out.
bool Scheduler::UsesPrefixTree(const Sequence& sequence) const {
  const SamplingParams& sampling = sequence.request.sampling;
  const bool needs_all = options_.pooling == PoolingType::kNone ? sampling.prompt_logprobs >= 0
                                                                : options_.pooling != PoolingType::kLast;
  return options_.prefix_caching && !needs_all;
}

void Scheduler::HashPages(Sequence& sequence) const {
  std::vector<Hash128>& hashes = sequence.page_hashes;
  while ((std::ssize(hashes) + 1) * kKvPageTokens <= std::ssize(sequence.tokens)) {
    const int64_t page = std::ssize(hashes);
    hashes.push_back(ChainHash(HashBefore(sequence, page), ContentOfPage(sequence, page)));
  }
}

// All but the last token, which must be computed so that there are logits.
PrefixMatch Scheduler::FindPrefix(Sequence& sequence) const {
  PrefixMatch match;
  if (!UsesPrefixTree(sequence)) return match;
  HashPages(sequence);
  const int64_t most = std::ssize(sequence.tokens) - 1;
  match.pages = prefix_tree_.FindPages(std::span(sequence.page_hashes).first(most / kKvPageTokens));
  const int64_t next = std::ssize(match.pages);
  if (const int64_t count = std::min(most - next * kKvPageTokens, kKvPageTokens); count > 0) {
    std::tie(match.copy, match.copy_tokens) =
        prefix_tree_.FindPartial(HashBefore(sequence, next), ContentOfPage(sequence, next, count));
  }
  return match;
}

void Scheduler::HoldPrefix(Sequence& sequence) {
  const PrefixMatch match = FindPrefix(sequence);
  for (const PagePlace& place : match.pages) {
    if (!place.on_host) pages_.Share(place.page, sequence.block_table);
  }
  prefix_tree_.Touch(match);
}

// Of the newest waiting sequence that holds something, `keep` excepted. False: none does.
bool Scheduler::ReleaseHold(const Sequence* keep) {
  for (auto it = waiting_.rbegin(); it != waiting_.rend(); ++it) {
    if (it->get() == keep || (*it)->block_table.empty()) continue;
    pages_.Free((*it)->block_table);
    return true;
  }
  return false;
}

// Pages for all that is known of a waiting sequence: those that the tree has on the device or, moved there,
// on the host, a copy of one that begins alike, and new ones. False: it has to wait.
bool Scheduler::AllocateFor(Sequence& sequence, StepPlan& plan, const StepBudget& budget) {
  const PrefixMatch match = FindPrefix(sequence);
  if (sequence.request.sampling.HasPenalties() && match.tokens() > budget.found_tokens) return false;
  std::vector<int32_t> shared, copied, fresh;
  for (const PagePlace& place : match.pages) {
    if (!place.on_host) pages_.Share(place.page, shared);
  }
  pages_.Free(sequence.block_table);  // what it held; now that the same are shared
  sequence.block_table = std::move(shared);
  const int64_t needed = PagesForTokens(sequence.num_tokens()) - std::ssize(sequence.block_table);
  while (needed + num_running() > pages_.available_pages()) {
    if (!ReleaseHold(&sequence)) return false;
  }
  const bool copies = match.copy_tokens > 0;
  if (copies && !match.copy.on_host) pages_.Share(match.copy.page, copied);
  prefix_tree_.Pin(match);  // else the pages that now leave the device could take their places
  if (!pages_.Allocate(needed, fresh)) {
    // The page to copy from is the very one that is missing; its content is lost only after the copy.
    pages_.Free(copied);
    FD_CHECK(pages_.Allocate(needed, fresh));
  }
  prefix_tree_.Unpin(match);
  std::vector<int32_t> table;
  auto next_shared = sequence.block_table.begin();
  auto next_fresh = fresh.begin();
  for (const PagePlace& place : match.pages) table.push_back(place.on_host ? *next_fresh++ : *next_shared++);
  table.insert(table.end(), next_fresh, fresh.end());
  // The copy comes first: its page may be among the fresh ones, whichever of them the pool gave for what.
  if (copies && match.copy != PagePlace{table[match.pages.size()]}) {
    prefix_tree_.PlanMove(match.copy, {table[match.pages.size()]});
  }
  for (size_t i = 0; i < match.pages.size(); ++i) {
    if (match.pages[i].on_host) prefix_tree_.BringIn(match.pages[i].page, table[i]);
  }
  sequence.block_table = std::move(table);
  pages_.Free(copied);
  const int64_t found = match.tokens();
  sequence.computed_tokens = found;
  sequence.published_pages = std::ssize(match.pages);
  const auto& media = sequence.request.media;
  while (sequence.next_media < std::ssize(media)) {
    const MediaItem& item = *media[static_cast<size_t>(sequence.next_media)];
    if (item.first_token + item.num_tokens > found) break;
    ++sequence.next_media;
  }
  const int64_t prompt_found = std::min(found, sequence.prompt_tokens);
  sequence.counted_prompt_tokens = std::max(sequence.counted_prompt_tokens, prompt_found);
  if (sequence.scheduled_at == Clock::time_point{}) {
    sequence.cached_tokens = prompt_found;
    sequence.cached_host_tokens = match.host_tokens();
  }
  if (UsesPrefixTree(sequence)) {
    ++plan.prefix_queries;
    plan.prefix_hits += found > 0 ? 1 : 0;
    plan.prefix_query_tokens += std::ssize(sequence.tokens);
    plan.prefix_hit_tokens += found;
    plan.prefix_host_hit_tokens += match.host_tokens();
  }
  return true;
}

// Pages that the planned steps fill, as far as their tokens are known. with_tail: also the one that is begun,
// which nobody will write any more.
void Scheduler::PublishPages(Sequence& sequence, bool with_tail) {
  if (!options_.prefix_caching) return;
  const int64_t known = std::min(sequence.computed_tokens, static_cast<int64_t>(std::ssize(sequence.tokens)));
  if (known < (sequence.published_pages + (with_tail ? 0 : 1)) * kKvPageTokens) return;
  HashPages(sequence);
  const auto publish = [&](int64_t page, int64_t count) {
    PageContent content = ContentOfPage(sequence, page, count);
    const Hash128 before = HashBefore(sequence, page);
    const Hash128 hash =
        count == kKvPageTokens ? sequence.page_hashes[static_cast<size_t>(page)] : ChainHash(before, content);
    prefix_tree_.Publish(before, hash, std::move(content), sequence.block_table[static_cast<size_t>(page)]);
  };
  for (; (sequence.published_pages + 1) * kKvPageTokens <= known; ++sequence.published_pages) {
    publish(sequence.published_pages, kKvPageTokens);
  }
  const int64_t tail = known - sequence.published_pages * kKvPageTokens;
  if (with_tail && tail > 0) publish(sequence.published_pages, tail);
}

void Scheduler::GivePagesBack(Sequence& sequence) {
  if (sequence.computed_tokens > 0) PublishPages(sequence, /*with_tail=*/true);
  pages_.Free(sequence.block_table);
  sequence.computed_tokens = 0;
  sequence.published_pages = 0;
}

// Steps run in order, so whoever gets the slot clears it after the last step that reads it.
void Scheduler::FreeSeenSlot(Sequence& sequence) {
  if (sequence.seen_slot < 0) return;
  free_seen_slots_.push_back(sequence.seen_slot);
  sequence.seen_slot = -1;
}

// The item that computed_tokens lies inside of, if it does.
void Scheduler::UnpinMedia(Sequence& sequence) {
  if (sequence.media_row < 0) return;
  encoder_slots_.Unpin(sequence.request.media[static_cast<size_t>(sequence.next_media)]->content_hash);
  sequence.media_row = -1;
}

Clock::time_point Scheduler::EndOf(const Sequence& sequence) const {
  const GenerateRequest& request = sequence.request;
  // Who has been in a step waits no more, also where a preemption brought it back into the queue.
  if (options_.max_waiting_s < 0 || sequence.scheduled_at != Clock::time_point{}) return request.deadline;
  return std::min(request.deadline,
                  request.submitted_at + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double>(options_.max_waiting_s)));
}

std::vector<RequestId> Scheduler::Expired(Clock::time_point now) {
  std::vector<RequestId> ids;
  if (now < next_end_) return ids;
  next_end_ = Clock::time_point::max();
  const auto look = [&](const std::unique_ptr<Sequence>& sequence) {
    const Clock::time_point end = EndOf(*sequence);
    if (end <= now) {
      ids.push_back(sequence->request.id);
    } else {
      next_end_ = std::min(next_end_, end);
    }
  };
  std::for_each(running_.begin(), running_.end(), look);
  std::for_each(waiting_.begin(), waiting_.end(), look);
  return ids;
}

std::vector<RequestId> Scheduler::RunningIds() const {
  std::vector<RequestId> ids;
  for (const auto& sequence : running_) ids.push_back(sequence->request.id);
  return ids;
}

std::vector<RequestId> Scheduler::AllIds() const {
  std::vector<RequestId> ids = RunningIds();
  for (const auto& sequence : waiting_) ids.push_back(sequence->request.id);
  return ids;
}

void Scheduler::CheckIdle() const {
  FD_CHECK(idle());
  FD_CHECK(by_id_.empty());
  FD_CHECK_EQ(encoder_slots_.pins(), 0, "an encoder output is pinned by nobody");
  encoder_slots_.CheckAccounting();
  FD_CHECK_EQ(static_cast<int64_t>(free_seen_slots_.size()), options_.MaxStepSequences(),
              "a record of seen tokens belongs to nobody");
  pages_.CheckAccounting();
  prefix_tree_.CheckAccounting();
  FD_CHECK_EQ(pages_.used_pages(), 0, "pages used without a sequence");
}

}  // namespace fd
