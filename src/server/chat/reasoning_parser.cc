#include "server/chat/reasoning_parser.h"

#include <algorithm>
#include <utility>

#include "server/chat/markers.h"
#include "server/chat/parser_names.h"

namespace fd {
namespace {

constexpr NamedFormat<ReasoningFormat> kFormats[] = {
    {"ernie-45-vl", ReasoningFormat::kErnie45Vl},
    {"ernie-45-vl-thinking", ReasoningFormat::kErnie45VlThinking},
    {"ernie-x1", ReasoningFormat::kErnieX1},
    {"qwen3", ReasoningFormat::kQwen3},
};

constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::string_view kNewlines = "\r\n";

}  // namespace

StatusOr<ReasoningFormat> ReasoningFormatNamed(const std::string& name) {
  if (name.empty()) return ReasoningFormat::kNone;
  return FormatNamed(kFormats, name, "--reasoning-parser");
}

std::vector<std::string_view> ReasoningMarkers(ReasoningFormat format) {
  switch (format) {
    case ReasoningFormat::kNone:
      return {};
    case ReasoningFormat::kErnie45Vl:
      return {kThinkClose};
    case ReasoningFormat::kErnie45VlThinking:
      return {kThinkClose, kToolCallOpen};
    case ReasoningFormat::kErnieX1:
      return {kThinkClose, kResponseOpen, kResponseClose, kToolCallOpen};
    case ReasoningFormat::kQwen3:
      return {kThinkOpen, kThinkClose};
  }
  return {};
}

ReasoningParser::ReasoningParser(ReasoningFormat format, ReasoningStart start) : format_(format) {
  if (format == ReasoningFormat::kNone) return;
  switch (start) {
    case ReasoningStart::kReasoning:
      state_ = State::kReasoning;
      break;
    case ReasoningStart::kAnswer:
      // X1 writes <response> also where it has not thought.
      state_ = format == ReasoningFormat::kErnieX1 ? State::kAfterThink : State::kRest;
      break;
    case ReasoningStart::kModel:
      if (format == ReasoningFormat::kQwen3) state_ = State::kBeforeThink;
      if (format == ReasoningFormat::kErnieX1) state_ = State::kReasoning;  // it always thinks
      break;
  }
}

ReasoningParser::Piece ReasoningParser::Push(std::string_view text) {
  pending_ += text;
  return Run(false);
}

ReasoningParser::Piece ReasoningParser::Finish() { return Run(true); }

ReasoningParser::Piece ReasoningParser::Run(bool at_end) {
  Piece piece;
  std::string_view rest = pending_;
  while (!rest.empty() && Step(rest, piece, at_end)) {
  }
  pending_.erase(0, pending_.size() - rest.size());
  // X1's whitespace outside its tags is layout.
  if (at_end && format_ != ReasoningFormat::kErnieX1) piece.answer += std::exchange(held_, {});
  return piece;
}

void ReasoningParser::Hold(std::string_view& rest, std::string_view what) {
  const size_t count = std::min(rest.find_first_not_of(what), rest.size());
  held_ += rest.substr(0, count);
  rest.remove_prefix(count);
}

bool ReasoningParser::Step(std::string_view& rest, Piece& piece, bool at_end) {
  const auto take = [&rest](size_t count) {
    const std::string_view taken = rest.substr(0, count);
    rest.remove_prefix(count);
    return taken;
  };
  switch (state_) {
    case State::kBeforeThink: {
      Hold(rest, kSpaces);
      if (rest.empty()) return false;
      const MarkerMatch match = MatchMarker(rest, kThinkOpen);
      if (match == MarkerMatch::kPartial && !at_end) return false;
      if (match == MarkerMatch::kYes) {
        take(kThinkOpen.size());
        held_.clear();
        state_ = State::kReasoning;
        return true;
      }
      piece.answer += std::exchange(held_, {});
      state_ = State::kRest;
      return true;
    }
    case State::kReasoning: {
      const FoundMarker found = FindMarker(rest, {kThinkClose}, at_end);
      piece.reasoning += take(found.position);
      if (found.marker.empty()) return false;
      take(found.marker.size());
      const bool decides =
          format_ == ReasoningFormat::kErnieX1 || format_ == ReasoningFormat::kErnie45VlThinking;
      state_ = decides ? State::kAfterThink : State::kRest;
      return true;
    }
    case State::kAfterThink: {
      const bool x1 = format_ == ReasoningFormat::kErnieX1;
      Hold(rest, x1 ? kSpaces : kNewlines);
      if (rest.empty()) return false;
      const MarkerMatch tool = MatchMarker(rest, kToolCallOpen);
      const MarkerMatch response = x1 ? MatchMarker(rest, kResponseOpen) : MarkerMatch::kNo;
      if ((tool == MarkerMatch::kPartial || response == MarkerMatch::kPartial) && !at_end) return false;
      if (response == MarkerMatch::kYes) {
        take(kResponseOpen.size());
        held_.clear();
        state_ = State::kResponse;
        return true;
      }
      if (tool == MarkerMatch::kYes) held_.clear();
      piece.answer += std::exchange(held_, {});
      state_ = x1 && tool != MarkerMatch::kYes ? State::kAnswer : State::kRest;
      return true;
    }
    case State::kAnswer:      // X1 without <response>
    case State::kResponse: {  // X1 inside it
      const FoundMarker found = FindMarker(rest, {kResponseOpen, kResponseClose, kToolCallOpen}, at_end);
      piece.answer += take(found.position);
      if (found.marker.empty()) return false;
      if (found.marker == kToolCallOpen) {
        state_ = State::kRest;
      } else {
        take(found.marker.size());
        state_ = found.marker == kResponseOpen ? State::kResponse : State::kAfterResponse;
      }
      return true;
    }
    case State::kAfterResponse: {
      Hold(rest, kSpaces);
      if (rest.empty()) return false;
      const MarkerMatch tool = MatchMarker(rest, kToolCallOpen);
      if (tool == MarkerMatch::kPartial && !at_end) return false;
      if (tool == MarkerMatch::kYes) {
        held_.clear();
        state_ = State::kRest;
        return true;
      }
      piece.answer += std::exchange(held_, {});
      state_ = State::kAnswer;
      return true;
    }
    case State::kRest:
      piece.answer += take(rest.size());
      return false;
  }
  return false;
}

}  // namespace fd
