#include "server/http/request_head.h"

#include <algorithm>
#include <limits>

#include "base/strings.h"

namespace fd {
namespace {

constexpr std::string_view kCode = "bad_request";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsTokenChar(char c) {
  const char lower = LowerAscii(c);
  return (lower >= 'a' && lower <= 'z') || IsDigit(c) ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}
// What may stand in the value of a header: a tab, and everything from the space on but DEL.
bool IsFieldByte(char c) { return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f); }
bool IsVisible(char c) { return c > 0x20 && c < 0x7f; }

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return LowerAscii(x) == LowerAscii(y); });
}

std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string ByteName(char c) {
  return StrCat("a byte of value ", static_cast<int>(static_cast<unsigned char>(c)));
}

// -1: no hexadecimal digit.
int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = LowerAscii(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string_view RequestHead::Find(std::string_view name) const {
  for (const Field& field : fields) {
    if (SameName(field.name, name)) return field.value;
  }
  return {};
}

int RequestHead::Count(std::string_view name) const {
  return static_cast<int>(
      std::count_if(fields.begin(), fields.end(), [&](const Field& f) { return SameName(f.name, name); }));
}

HeadParser::Result HeadParser::Refuse(int status, const char* code, std::string message) {
  fault_ = {status, code, std::move(message)};
  return Result::kFault;
}

HeadParser::Result HeadParser::Bad(std::string message) {
  return Refuse(400, kCode.data(), StrCat("this is no HTTP/1.1 request: ", message));
}

HeadParser::Result HeadParser::Parse(std::string_view bytes) {
  if (fault_.status != 0) return Result::kFault;
  // Some clients send an empty line after a body.
  if (begin_ == 0 && scanned_ == 0 && bytes.starts_with('\r')) {
    if (bytes.size() == 1) return Result::kMore;
    if (bytes[1] != '\n') return Bad("a carriage return without a line feed");
    begin_ = scanned_ = line_begin_ = 2;
  }
  for (; scanned_ < bytes.size(); ++scanned_) {
    const char c = bytes[scanned_];
    if (c == '\r') {
      if (scanned_ + 1 == bytes.size()) break;  // looked at again when more has come
      if (bytes[scanned_ + 1] != '\n') return Bad("a carriage return without a line feed");
      ++scanned_;
      const size_t line_bytes = scanned_ - 1 - line_begin_;
      if (num_lines_ == 0 && static_cast<int64_t>(line_bytes) > limits_.max_line_bytes) {
        return CheckUnfinished(bytes.substr(0, scanned_ - 1));
      }
      if (line_bytes == 0)
        return num_lines_ == 0 ? Bad("an empty line stands before it")
                               : Finish(bytes.substr(0, scanned_ + 1));
      ++num_lines_;
      line_begin_ = scanned_ + 1;
      if (num_lines_ - 1 > limits_.max_headers) {
        return Refuse(431, "header_too_large",
                      StrCat("the request has more than ", limits_.max_headers, " headers (--max-headers)"));
      }
    } else if (c == '\n') {
      return Bad("a line feed without a carriage return");
    } else if (!IsFieldByte(c)) {
      if (scanned_ == 0 && c == 0x16) {
        return Bad("it looks like TLS; this port speaks plain HTTP, so use http:// and not https://");
      }
      return Bad(StrCat(ByteName(c), " stands in its header"));
    }
  }
  return CheckUnfinished(bytes);
}

// What is already too long will not become shorter.
HeadParser::Result HeadParser::CheckUnfinished(std::string_view bytes) {
  const auto size = static_cast<int64_t>(bytes.size() - begin_);
  if (num_lines_ == 0 && limits_.max_line_bytes <= limits_.max_head_bytes && size > limits_.max_line_bytes &&
      !bytes.ends_with('\r')) {
    return Refuse(414, "request_line_too_large",
                  StrCat("the request line is longer than ", limits_.max_line_bytes,
                         " bytes (--max-request-line-bytes)"));
  }
  if (size <= limits_.max_head_bytes) return Result::kMore;
  return Refuse(431, "header_too_large",
                StrCat("the request line and headers are longer than ", limits_.max_head_bytes,
                       " bytes (--max-header-bytes)"));
}

HeadParser::Result HeadParser::Finish(std::string_view bytes) {
  if (static_cast<int64_t>(bytes.size() - begin_) > limits_.max_head_bytes) return CheckUnfinished(bytes);
  head_ = {};
  head_.size_bytes = bytes.size();
  head_.fields.reserve(static_cast<size_t>(num_lines_ - 1));
  std::string_view rest = bytes.substr(begin_);
  for (int64_t i = 0; i < num_lines_; ++i) {
    const size_t end = rest.find('\r');
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    if (!(i == 0 ? ReadRequestLine(line) : ReadField(line))) return Result::kFault;
  }
  return Result::kDone;
}

bool HeadParser::ReadRequestLine(std::string_view line) {
  const size_t first = line.find(' ');
  const size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  if (second == std::string_view::npos) {
    Bad("its first line must be METHOD PATH HTTP/1.1");
    return false;
  }
  head_.method = line.substr(0, first);
  head_.target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (!IsToken(head_.method)) {
    Bad("its method is no word");
  } else if (head_.target.empty() || !std::all_of(head_.target.begin(), head_.target.end(), IsVisible)) {
    Bad("its path holds bytes that must be percent-encoded");
  } else if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    Bad("its version is neither HTTP/1.1 nor HTTP/1.0");
  } else {
    head_.is_http11 = version == "HTTP/1.1";
    return true;
  }
  return false;
}

bool HeadParser::ReadField(std::string_view line) {
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  if (line.front() == ' ' || line.front() == '\t') {
    Bad("a header is folded over two lines");
  } else if (colon == std::string_view::npos) {
    Bad("a header has no colon");
  } else if (!name.empty() && (name.back() == ' ' || name.back() == '\t')) {
    Bad("white space stands before a header's colon");
  } else if (!IsToken(name)) {
    Bad("a header's name is no word");
  } else {
    head_.fields.push_back({name, TrimBlanks(line.substr(colon + 1))});
    return true;
  }
  return false;
}

RequestFraming FramingOf(const RequestHead& head) {
  RequestFraming framing;
  framing.keep_alive = head.is_http11;
  for (const RequestHead::Field& field : head.fields) {
    if (!SameName(field.name, "Connection")) continue;
    for (const std::string& option : Split(field.value, ',')) {
      const std::string_view word = TrimBlanks(option);
      if (SameName(word, "close")) framing.keep_alive = false;
      if (SameName(word, "keep-alive") && !head.is_http11) framing.keep_alive = true;
    }
  }
  const auto bad = [&](const char* why) {
    framing.fault = why;
    framing.keep_alive = false;
    return framing;
  };
  if (head.Count("Host") > 1) return bad("the Host header stands twice");
  if (head.Find("Host").find_first_of(" \t,/\\@?#") != std::string_view::npos) {
    return bad("the Host header is no host name");
  }
  const int lengths = head.Count("Content-Length");
  const int codings = head.Count("Transfer-Encoding");
  if (lengths > 1) return bad("the Content-Length header stands twice");
  if (lengths > 0 && codings > 0) return bad("Content-Length and Transfer-Encoding exclude each other");
  if (lengths > 0) {
    const std::string_view digits = head.Find("Content-Length");
    // "5, 5" is one length to some readers and a fault to others.
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), IsDigit)) {
      return bad("the Content-Length is no number");
    }
    framing.has_length = true;
    for (const char c : digits) {
      if (framing.content_length > (std::numeric_limits<int64_t>::max() - 9) / 10) {
        return bad("the Content-Length is too large a number");
      }
      framing.content_length = framing.content_length * 10 + (c - '0');
    }
  }
  if (codings > 0) {
    if (!head.is_http11) return bad("Transfer-Encoding needs HTTP/1.1");
    if (codings > 1 || !SameName(head.Find("Transfer-Encoding"), "chunked")) {
      return bad("the only Transfer-Encoding that is understood is chunked");
    }
    framing.has_length = framing.chunked = true;
  }
  return framing;
}

ChunkDecoder::Result ChunkDecoder::Bad(std::string message) {
  fault_ = {400, std::string(kCode), StrCat("the chunked body is malformed: ", message)};
  return Result::kFault;
}

ChunkDecoder::Result ChunkDecoder::Decode(std::string_view bytes, size_t& taken, std::string& body) {
  taken = 0;
  if (fault_.status != 0) return Result::kFault;
  while (taken < bytes.size()) {
    if (state_ == State::kData) {
      const size_t size = std::min(static_cast<size_t>(chunk_bytes_), bytes.size() - taken);
      body.append(bytes.substr(taken, size));
      taken += size;
      chunk_bytes_ -= static_cast<int64_t>(size);
      body_bytes_ += static_cast<int64_t>(size);
      if (chunk_bytes_ == 0) state_ = State::kDataEnd;
      continue;
    }
    const char c = bytes[taken++];
    if (++overhead_bytes_ > max_overhead_bytes_ + body_bytes_) {
      return Bad(StrCat("its chunks' sizes, extensions and trailers take more than ", max_overhead_bytes_,
                        " bytes and the size of the body (--max-chunk-overhead-bytes); send larger chunks"));
    }
    const auto expect = [&](char wanted, State next) {
      if (c != wanted) return false;
      state_ = next;
      return true;
    };
    switch (state_) {
      case State::kSizeBegin:
      case State::kSize:
        if (const int digit = HexValue(c); digit >= 0) {
          if (chunk_bytes_ > std::numeric_limits<int64_t>::max() >> 4)
            return Bad("a chunk's size is too large");
          chunk_bytes_ = chunk_bytes_ * 16 + digit;
          state_ = State::kSize;
        } else if (state_ == State::kSizeBegin) {
          return Bad("a chunk has no size in hexadecimal digits");
        } else if (c == ';') {
          state_ = State::kExtension;
        } else if (c == '\r') {
          state_ = State::kSizeEnd;
        } else {
          return Bad("a chunk's size ends in something else than CR LF");
        }
        break;
      case State::kExtension:
        if (c == '\r') {
          state_ = State::kSizeEnd;
        } else if (!IsFieldByte(c)) {
          return Bad(StrCat(ByteName(c), " stands in a chunk's extension"));
        }
        break;
      case State::kSizeEnd:
        if (c != '\n') return Bad("a carriage return without a line feed");
        if (chunk_bytes_ > max_body_bytes_ - body_bytes_) {
          fault_ = {
              413, "payload_too_large",
              StrCat("the request's body is longer than ", max_body_bytes_, " bytes (--max-body-bytes)")};
          return Result::kFault;
        }
        state_ = chunk_bytes_ > 0 ? State::kData : State::kTrailerBegin;
        break;
      case State::kDataEnd:
        if (!expect('\r', State::kDataEndLine)) return Bad("a chunk is longer than its size");
        break;
      case State::kDataEndLine:
        if (!expect('\n', State::kSizeBegin)) return Bad("a carriage return without a line feed");
        break;
      case State::kTrailerBegin:
        if (expect('\r', State::kLastLine)) break;
        if (!IsTokenChar(c)) return Bad("a trailer's name is no word");
        state_ = State::kTrailer;
        break;
      case State::kTrailer:
        if (c == '\r') {
          state_ = State::kTrailerEnd;
        } else if (!IsFieldByte(c)) {
          return Bad(StrCat(ByteName(c), " stands in a trailer"));
        }
        break;
      case State::kTrailerEnd:
        if (!expect('\n', State::kTrailerBegin)) return Bad("a carriage return without a line feed");
        break;
      case State::kLastLine:
        if (c != '\n') return Bad("a carriage return without a line feed");
        return Result::kDone;
      case State::kData:
        break;
    }
  }
  return Result::kMore;
}

}  // namespace fd
