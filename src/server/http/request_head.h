// Request lines, headers and chunks: bytes -> values, or the fault that refuses them. Strict: what two
// readers could frame differently (a bare line feed, a folded line, a space before the colon, two lengths) is
// a fault. Pure: no sockets. One thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fd {

// Why a request is refused; status 0: it is not.
struct RequestFault {
  int status = 0;
  std::string code;
  std::string message;
};

struct HeadLimits {
  int64_t max_line_bytes = 8 << 10;   // --max-request-line-bytes: 414
  int64_t max_head_bytes = 32 << 10;  // --max-header-bytes, request line and headers: 431
  int64_t max_headers = 100;          // --max-headers: 431
};

struct RequestHead {
  struct Field {
    std::string_view name;
    std::string_view value;  // without the white space around it
  };
  std::string_view method;
  std::string_view target;
  bool is_http11 = true;
  std::vector<Field> fields;
  size_t size_bytes = 0;  // with the empty line

  // The first value; empty when there is none. Names compare without case.
  std::string_view Find(std::string_view name) const;
  int Count(std::string_view name) const;
};

// Reads one head as its bytes arrive; the work is linear however they are cut.
class HeadParser {
 public:
  enum class Result { kMore, kDone, kFault };

  explicit HeadParser(const HeadLimits& limits) : limits_(limits) {}
  // bytes: all of the request that has arrived, with the same beginning at every call. A limit is noticed
  // before the head is whole.
  Result Parse(std::string_view bytes);
  const RequestHead& head() const { return head_; }  // after kDone; views into `bytes`
  const RequestFault& fault() const { return fault_; }

 private:
  Result Refuse(int status, const char* code, std::string message);
  Result Bad(std::string message);
  Result Finish(std::string_view bytes);
  bool ReadRequestLine(std::string_view line);
  bool ReadField(std::string_view line);
  Result CheckUnfinished(std::string_view bytes);

  const HeadLimits limits_;
  RequestHead head_;
  RequestFault fault_;
  size_t begin_ = 0;       // 2 after an empty line before the request
  size_t scanned_ = 0;     // bytes that have been looked at
  size_t line_begin_ = 0;  // of the line that is not whole yet
  int64_t num_lines_ = 0;
};

// Where a request's body ends, and whether its connection carries another one.
struct RequestFraming {
  bool has_length = false;  // Content-Length or chunks; without either there is no body
  bool chunked = false;
  int64_t content_length = 0;
  bool keep_alive = true;
  std::string fault;  // 400; empty: none
};
RequestFraming FramingOf(const RequestHead& head);

// The body of "Transfer-Encoding: chunked", without its trailers. What is no data may take up
// max_overhead_bytes plus one byte for each of the data: chunks of one byte are no way to keep a server busy.
class ChunkDecoder {
 public:
  enum class Result { kMore, kDone, kFault };

  // --max-body-bytes: 413; --max-chunk-overhead-bytes: 400.
  ChunkDecoder(int64_t max_body_bytes, int64_t max_overhead_bytes)
      : max_body_bytes_(max_body_bytes), max_overhead_bytes_(max_overhead_bytes) {}
  // Appends data to `body`; `taken` is how many of `bytes` were used up, all of them unless kDone or kFault.
  Result Decode(std::string_view bytes, size_t& taken, std::string& body);
  const RequestFault& fault() const { return fault_; }

 private:
  enum class State {
    kSizeBegin,  // no digit yet
    kSize,
    kExtension,
    kSizeEnd,  // the line feed of the size
    kData,
    kDataEnd,      // the carriage return after the data
    kDataEndLine,  // its line feed
    kTrailerBegin,
    kTrailer,
    kTrailerEnd,  // the line feed of a trailer
    kLastLine,    // the line feed of the end
  };
  Result Bad(std::string message);

  const int64_t max_body_bytes_;
  const int64_t max_overhead_bytes_;
  State state_ = State::kSizeBegin;
  int64_t chunk_bytes_ = 0;  // its size; within kData what is left of it
  int64_t body_bytes_ = 0;
  int64_t overhead_bytes_ = 0;
  RequestFault fault_;
};

}  // namespace fd
