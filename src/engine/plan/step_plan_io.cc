#include "engine/plan/step_plan_io.h"

#include <algorithm>
#include <bit>
#include <concepts>
#include <type_traits>

#include "base/byte_stream.h"
#include "base/strings.h"

namespace fd {
namespace {

// One list of fields for both directions: Fields(io, struct) names every member, by a structured binding, so
// that a new member is a compile error here. What is not written is cast to void.

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, PagePlace>
void Fields(Io& io, T& value) {
  auto& [page, on_host] = value;
  io(page, on_host);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, PageMove>
void Fields(Io& io, T& value) {
  auto& [from, to] = value;
  io(from, to);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, MediaSlice>
void Fields(Io& io, T& value) {
  auto& [slab_row, media_begin, row_begin, count] = value;
  io(slab_row, media_begin, row_begin, count);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, MediaEncode>
void Fields(Io& io, T& value) {
  auto& [item, slab_row] = value;
  io.Media(item);
  io(slab_row);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, TokenBan>
void Fields(Io& io, T& value) {
  auto& [token_id, after] = value;
  io(token_id, after);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, SequenceControls>
void Fields(Io& io, T& value) {
  auto& [seen_slot, reset_seen, enter_begin, enter_prompt, found_ids, found_prompt, repetition_penalty,
         presence_penalty, frequency_penalty, biases, bans, allowed, top_logprobs, temp_scaled_logprobs,
         top_p_normalized_logprobs] = value;
  io(seen_slot, reset_seen, enter_begin, enter_prompt, found_ids, found_prompt, repetition_penalty,
     presence_penalty, frequency_penalty, biases, bans, allowed, top_logprobs, temp_scaled_logprobs,
     top_p_normalized_logprobs);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, SequenceStep>
void Fields(Io& io, T& value) {
  auto& [request_id, token_ids, last_token_from_row, positions, vision_expert, context_tokens, block_table,
         media, score_begin, score_ids, score_top, samples, sum_slot, temperature, top_k, top_p, min_p, seed,
         sample_position, controls] = value;
  io(request_id, token_ids, last_token_from_row, positions, vision_expert, context_tokens);
  io.BlockTable(request_id, block_table);
  io(media, score_begin, score_ids, score_top, samples, sum_slot, temperature, top_k, top_p, min_p, seed,
     sample_position, controls);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, StepPlan>
void Fields(Io& io, T& value) {
  auto& [step, begun_at, sequences, num_tokens, num_outputs, num_decodes, page_moves, encodes, encode_tokens,
         encoder_hits, encoder_hit_tokens, encoder_kept_tokens, prefix_queries, prefix_hits,
         prefix_query_tokens, prefix_hit_tokens, prefix_host_hit_tokens] = value;
  static_cast<void>(begun_at);
  io(step, sequences, num_tokens, num_outputs, num_decodes, page_moves, encodes, encode_tokens, encoder_hits,
     encoder_hit_tokens, encoder_kept_tokens, prefix_queries, prefix_hits, prefix_query_tokens,
     prefix_hit_tokens, prefix_host_hit_tokens);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, TokenLogprob>
void Fields(Io& io, T& value) {
  auto& [token_id, logprob] = value;
  io(token_id, logprob);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, PromptLogprob>
void Fields(Io& io, T& value) {
  auto& [token_id, logprob, rank, top] = value;
  io(token_id, logprob, rank, top);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, StepResult::Token>
void Fields(Io& io, T& value) {
  auto& [request_id, token_id, logprob, top_logprobs, embedding] = value;
  io(request_id, token_id, logprob, top_logprobs, embedding);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, StepResult::Scores>
void Fields(Io& io, T& value) {
  auto& [request_id, prompt_logprobs] = value;
  io(request_id, prompt_logprobs);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, StepResult>
void Fields(Io& io, T& value) {
  auto& [step, tokens, scores, status, device_lost, device_ms, device_idle_ms, encode_ms] = value;
  static_cast<void>(device_ms);
  static_cast<void>(device_idle_ms);
  static_cast<void>(encode_ms);
  io(step, tokens, scores, status, device_lost);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, Hash128>
void Fields(Io& io, T& value) {
  auto& [low, high] = value;
  io(low, high);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, MediaItem>
void Fields(Io& io, T& value) {
  auto& [content_hash, grid_t, grid_h, grid_w, patch_rows, first_token, num_tokens] = value;
  io(content_hash, grid_t, grid_h, grid_w, patch_rows, first_token, num_tokens);
}

template <typename Io, typename T>
  requires std::same_as<std::remove_const_t<T>, EngineOptions>
void Fields(Io& io, T& value) {
  auto& [max_model_len, max_num_seqs, max_num_batched_tokens, max_num_partial_prefills,
         max_long_partial_prefills, long_prefill_token_threshold, target_step_ms, num_kv_pages, kv_dtype,
         prefix_caching, num_host_pages, page_in_ms, max_waiting_requests, max_waiting_s, step_timeout_s,
         min_step_timeout_s, max_media_tokens, encoder_cache_tokens, max_encoder_batch_tokens, overlap,
         cuda_graphs, max_logit_bias, max_banned_tokens, max_allowed_token_ids, max_logprobs,
         sampled_vocab_size, logprobs_mode, pooling] = value;
  io(max_model_len, max_num_seqs, max_num_batched_tokens, max_num_partial_prefills, max_long_partial_prefills,
     long_prefill_token_threshold, target_step_ms, num_kv_pages, kv_dtype, prefix_caching, num_host_pages,
     page_in_ms, max_waiting_requests, max_waiting_s, step_timeout_s, min_step_timeout_s, max_media_tokens,
     encoder_cache_tokens, max_encoder_batch_tokens, overlap, cuda_graphs, max_logit_bias, max_banned_tokens,
     max_allowed_token_ids, max_logprobs, sampled_vocab_size, logprobs_mode, pooling);
}

class Writer {
 public:
  Writer(std::string* out, BlockTableHistory* tables = nullptr) : out_(out), tables_(tables) {}
  template <typename... Values>
  void operator()(const Values&... values) {
    (Value(values), ...);
  }
  void Media(const std::shared_ptr<const MediaItem>& item) { Value(item->content_hash); }
  void BlockTable(RequestId id, const std::vector<int32_t>& table) {
    std::vector<int32_t>& known = tables_->Of(id);
    const auto kept = std::mismatch(known.begin(), known.end(), table.begin(), table.end()).second;
    const auto count = kept - table.begin();
    out_.Unsigned(static_cast<uint64_t>(count));
    out_.Unsigned(table.size() - static_cast<size_t>(count));
    for (auto page = kept; page != table.end(); ++page) out_.Signed(*page);
    known.resize(static_cast<size_t>(count));
    known.insert(known.end(), kept, table.end());
  }

 private:
  void Value(bool value) { out_.Byte(value ? 1 : 0); }
  template <std::signed_integral T>
  void Value(T value) {
    out_.Signed(value);
  }
  template <std::unsigned_integral T>
  void Value(T value) {
    out_.Unsigned(value);
  }
  void Value(float value) { out_.Fixed32(std::bit_cast<uint32_t>(value)); }
  void Value(double value) { out_.Fixed64(std::bit_cast<uint64_t>(value)); }
  template <typename T>
    requires std::is_enum_v<T>
  void Value(T value) {
    out_.Unsigned(static_cast<uint64_t>(value));
  }
  void Value(const std::string& value) { out_.Text(value); }
  void Value(const std::vector<uint8_t>& value) {
    out_.Text({reinterpret_cast<const char*>(value.data()), value.size()});
  }
  void Value(const PixelRows& value) {
    out_.Text({reinterpret_cast<const char*>(value.data()), value.size()});
  }
  void Value(const Status& value) {
    Value(value.code());
    Value(value.message());
    Value(value.param());
  }
  template <typename T>
  void Value(const std::vector<T>& values) {
    out_.Unsigned(values.size());
    for (const T& value : values) Value(value);
  }
  template <typename A, typename B>
  void Value(const std::pair<A, B>& value) {
    Value(value.first);
    Value(value.second);
  }
  template <typename T>
  void Value(const std::optional<T>& value) {
    Value(value.has_value());
    if (value) Value(*value);
  }
  template <typename T>
    requires std::is_class_v<T>
  void Value(const T& value) {
    Fields(*this, value);
  }

  ByteWriter out_;
  BlockTableHistory* const tables_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : in_(bytes) {}
  // Of plans.
  struct Plans {
    BlockTableHistory* tables;
    const PlanReader::MediaOf* media_of;
    int64_t max_sequences, max_pages;
  };
  Reader(std::string_view bytes, const Plans& plans) : in_(bytes), plans_(plans) {}

  // OK when everything was there and nothing more.
  Status Finish(const char* what) {
    if (error_.ok() && !in_.AtEnd()) {
      error_ = InvalidArgument(in_.ok() ? StrCat(what, ": ", in_.remaining(), " bytes too many")
                                        : StrCat(what, ": its bytes end early or are no numbers"));
    }
    return error_;
  }

  template <typename... Values>
  void operator()(Values&... values) {
    (Value(values), ...);
  }
  void Media(std::shared_ptr<const MediaItem>& item) {
    Hash128 hash;
    Value(hash);
    if (!in_.ok()) return;
    item = (*plans_.media_of)(hash);
    if (item == nullptr) Refuse("a picture that does not stand before its plan");
  }
  void BlockTable(RequestId id, std::vector<int32_t>& table) {
    const uint64_t kept = in_.Unsigned(), added = in_.Unsigned();
    if (!in_.ok()) return;
    std::vector<int32_t>& known = plans_.tables->Of(id);
    const auto most = static_cast<uint64_t>(plans_.max_pages);
    if (kept > known.size() || added > in_.remaining() || kept > most || added > most - kept)
      return Refuse(StrCat("a block table of ", kept, " known pages and ", added, " new ones"));
    known.resize(kept);
    for (uint64_t i = 0; i < added; ++i) known.push_back(Integer<int32_t>());
    table = known;
  }

 private:
  void Refuse(std::string what) {
    if (error_.ok() && in_.ok()) error_ = InvalidArgument(std::move(what));
    in_.Fail();
  }
  template <std::signed_integral T>
  T Integer() {
    const int64_t value = in_.Signed();
    if (static_cast<int64_t>(static_cast<T>(value)) != value) Refuse(StrCat("the number ", value));
    return static_cast<T>(value);
  }
  void Value(bool& value) {
    const uint8_t byte = in_.Byte();
    if (byte > 1) Refuse(StrCat("the byte ", int{byte}, " where yes or no should stand"));
    value = byte == 1;
  }
  template <std::signed_integral T>
  void Value(T& value) {
    value = Integer<T>();
  }
  template <std::unsigned_integral T>
  void Value(T& value) {
    const uint64_t read = in_.Unsigned();
    value = static_cast<T>(read);
    if (value != read) Refuse(StrCat("the number ", read));
  }
  void Value(float& value) { value = std::bit_cast<float>(in_.Fixed32()); }
  void Value(double& value) { value = std::bit_cast<double>(in_.Fixed64()); }
  void Value(LogprobsMode& value) { Enum(value, LogprobsMode::kProcessedLogits); }
  void Value(DType& value) { Enum(value, DType::kFloat8E4M3); }
  void Value(PoolingType& value) { Enum(value, PoolingType::kCls); }
  template <typename T>
  void Enum(T& value, T last) {
    const uint64_t read = in_.Unsigned();
    if (read > static_cast<uint64_t>(last)) return Refuse(StrCat("the kind ", read));
    value = static_cast<T>(read);
  }
  void Value(std::string& value) { value = in_.Text(); }
  void Value(std::vector<uint8_t>& value) {
    const std::string_view bytes = in_.Text();
    value.assign(bytes.begin(), bytes.end());
  }
  void Value(PixelRows& value) {
    std::vector<uint8_t> bytes;
    Value(bytes);
    value = PixelRows(std::move(bytes));
  }
  void Value(Status& value) {
    StatusCode code = StatusCode::kOk;
    Enum(code, StatusCode::kInternal);
    std::string message, param;
    Value(message);
    Value(param);
    value = Status(code, std::move(message), std::move(param));
  }
  // Every element takes a byte at least.
  template <typename T>
  void Value(std::vector<T>& values) {
    const uint64_t count = in_.Unsigned();
    if (count > in_.remaining()) return Refuse(StrCat("a list of ", count, " elements"));
    if constexpr (std::same_as<T, SequenceStep>) {
      if (count > static_cast<uint64_t>(plans_.max_sequences))
        return Refuse(
            StrCat(count, " sequences in a step, at most ", plans_.max_sequences, " can be in one"));
    }
    for (uint64_t i = 0; i < count && in_.ok(); ++i) Value(values.emplace_back());
  }
  template <typename A, typename B>
  void Value(std::pair<A, B>& value) {
    Value(value.first);
    Value(value.second);
  }
  template <typename T>
  void Value(std::optional<T>& value) {
    bool has = false;
    Value(has);
    if (has) Value(value.emplace());
  }
  template <typename T>
    requires std::is_class_v<T>
  void Value(T& value) {
    Fields(*this, value);
  }

  ByteReader in_;
  Status error_;
  const Plans plans_{};
};

template <typename T>
StatusOr<T> ReadAll(std::string_view bytes, const char* what) {
  T value;
  Reader reader(bytes);
  reader(value);
  FD_RETURN_IF_ERROR(reader.Finish(what));
  return value;
}

}  // namespace

std::vector<int32_t>& BlockTableHistory::Of(RequestId id) {
  Entry& entry = entries_[id];
  entry.plan = plan_;
  return entry.pages;
}

void BlockTableHistory::EndPlan() {
  std::erase_if(entries_, [this](const auto& item) { return item.second.plan != plan_; });
  ++plan_;
}

void PlanWriter::Write(const StepPlan& plan, std::string* out) {
  Writer writer(out, &tables_);
  writer(plan);
  tables_.EndPlan();
}

StatusOr<StepPlan> PlanReader::Read(std::string_view bytes) {
  StepPlan plan;
  Reader reader(bytes, {&tables_, &media_of_, max_sequences_, max_pages_});
  reader(plan);
  tables_.EndPlan();
  FD_RETURN_IF_ERROR(reader.Finish("a plan"));
  return plan;
}

void WriteResult(const StepResult& result, std::string* out) { Writer{out}(result); }
StatusOr<StepResult> ReadResult(std::string_view bytes) { return ReadAll<StepResult>(bytes, "a result"); }
void WriteMedia(const MediaItem& item, std::string* out) { Writer{out}(item); }
StatusOr<MediaItem> ReadMedia(std::string_view bytes) { return ReadAll<MediaItem>(bytes, "a picture"); }
void WriteOptions(const EngineOptions& options, std::string* out) { Writer{out}(options); }
StatusOr<EngineOptions> ReadOptions(std::string_view bytes) {
  return ReadAll<EngineOptions>(bytes, "the engine's limits");
}

}  // namespace fd
