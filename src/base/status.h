// User-visible failures as values. A Status reaches the client: its message says what, the number, the limit,
// the flag or field, and an example. Programmer errors are FD_CHECK (check.h), never a Status.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace fd {

enum class StatusCode {
  kOk,
  kInvalidArgument,    // 400: the request or a flag is wrong
  kUnauthenticated,    // 401
  kNotFound,           // 404
  kDeadlineExceeded,   // 408
  kPayloadTooLarge,    // 413
  kUnsupportedMedia,   // 415
  kResourceExhausted,  // 429: try again later
  kUnimplemented,      // 400: known, still to come; the message says so
  kUnavailable,        // 503: starting, draining, device lost
  kInternal,           // 500: our own fault
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message, std::string param = {})
      : code_(code), message_(std::move(message)), param_(std::move(param)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // The request field or flag at fault; empty when there is none.
  const std::string& param() const { return param_; }

  // The same failure with `context` and ": " before its message.
  Status WithContext(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_, param_);
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
  std::string param_;
};

inline Status OkStatus() { return {}; }
inline Status InvalidArgument(std::string message, std::string param = {}) {
  return {StatusCode::kInvalidArgument, std::move(message), std::move(param)};
}
inline Status NotFound(std::string message, std::string param = {}) {
  return {StatusCode::kNotFound, std::move(message), std::move(param)};
}
inline Status Unimplemented(std::string message, std::string param = {}) {
  return {StatusCode::kUnimplemented, std::move(message), std::move(param)};
}
inline Status Unavailable(std::string message) { return {StatusCode::kUnavailable, std::move(message)}; }
inline Status Internal(std::string message) { return {StatusCode::kInternal, std::move(message)}; }

// A value or the reason why there is none.
template <typename T>
class [[nodiscard]] StatusOr {
 public:
  StatusOr(Status status) : status_(std::move(status)) {  // NOLINT: implicit on purpose
    FD_CHECK(!status_.ok(), "an OK status needs a value");
  }
  StatusOr(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() & {
    FD_CHECK(ok(), status_.message());
    return *value_;
  }
  const T& value() const& {
    FD_CHECK(ok(), status_.message());
    return *value_;
  }
  T&& value() && {
    FD_CHECK(ok(), status_.message());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace fd

#define FD_CONCAT_INNER(a, b) a##b
#define FD_CONCAT(a, b) FD_CONCAT_INNER(a, b)

#define FD_RETURN_IF_ERROR(expr)                             \
  do {                                                       \
    if (::fd::Status fd_s = (expr); !fd_s.ok()) return fd_s; \
  } while (0)

// FD_ASSIGN_OR_RETURN(auto x, F()): F returns StatusOr; on error the enclosing function returns its status.
#define FD_ASSIGN_OR_RETURN(lhs, expr) FD_ASSIGN_OR_RETURN_INNER(FD_CONCAT(fd_or_, __LINE__), lhs, expr)
#define FD_ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()
