// The OpenAI-compatible HTTP server: sockets, routes, limits, SSE, disconnects, drain. Start, BeginDrain,
// WaitIdle and Stop are called by one thread (main); everything else runs on the server's own threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "server/openai/service.h"

namespace fd {

// Every limit is a flag; each refusal names it.
struct HttpOptions {
  std::string host = "127.0.0.1";  // --host: an IPv4 or IPv6 address, or "localhost"
  int port = 8000;                 // --port; 0 takes a free one
  // --metrics-port: a second listener for /metrics and /health. Absent or equal to port: /metrics on the main
  // port. 0 takes a free one.
  int metrics_port = -1;
  int io_threads = 1;      // --http-threads
  int worker_threads = 2;  // --http-workers: JSON, templates, tokens

  int64_t max_body_bytes = 32 << 20;         // --max-body-bytes: 413
  int64_t max_bodies_bytes = 1 << 30;        // --max-bodies-bytes: of all requests being read: 503
  int64_t max_request_line_bytes = 8 << 10;  // --max-request-line-bytes: 414
  int64_t max_header_bytes = 32 << 10;       // --max-header-bytes: request line and headers: 431
  int64_t max_headers = 100;                 // --max-headers: 431
  // --max-chunk-overhead-bytes: sizes, extensions and trailers of a chunked body beyond the size of the body
  // itself: 400
  int64_t max_chunk_overhead_bytes = 256 << 10;
  // --max-connections: 503 and close. Start lowers it to what the limit of open files allows and says so.
  int64_t max_connections = 16384;
  int64_t max_concurrency = 512;        // --max-concurrency: generating requests; beyond it 429
  int64_t max_concurrency_per_key = 0;  // --max-concurrency-per-key: of each API key; 0: no limit
  int64_t max_stream_lag_tokens =
      8192;  // --max-stream-lag-tokens: tokens a slow reader may lie behind; then cut
  std::chrono::milliseconds header_timeout{10'000};      // --header-timeout: 408 and close
  std::chrono::milliseconds body_timeout{30'000};        // --body-timeout: 408 and close
  std::chrono::milliseconds keep_alive_timeout{60'000};  // --keep-alive-timeout: between requests: close
  std::chrono::milliseconds write_timeout{60'000};       // --write-timeout: no progress: close
  std::chrono::milliseconds heartbeat_timeout{
      30'000};                                      // --heartbeat-timeout: an older heartbeat: /health 503
  std::chrono::milliseconds health_timeout{1'000};  // --health-timeout: how long /health waits for a turn

  // --api-key, --api-key-file, FD_API_KEY: when not empty, everything but /health, /ping and /metrics needs
  // "Authorization: Bearer KEY" or "X-Api-Key: KEY".
  std::vector<std::string> api_keys;
  // --admin-key: for the endpoints that act on the server. Empty: nobody may use them.
  std::vector<std::string> admin_keys;
  // --allowed-origins: web pages that may call ("https://chat.example.org"); "*": any. Empty: no CORS
  // headers.
  std::vector<std::string> allowed_origins;
  bool allow_credentials = false;  // --allow-credentials; not with "*"
  // --allowed-hosts: names that the Host header may have. Empty: on a loopback address without an API key
  // only loopback names (a web page must not reach the server by DNS rebinding), elsewhere any. "*": any.
  std::vector<std::string> allowed_hosts;

  bool access_log = true;          // one line for each request; --no-access-log
  std::string version;             // for /version
  std::string config_json = "{}";  // for /config-info: a JSON object without secrets
};

// Whether the ports of `options` can be had now, so that a port in use is told before weights are loaded.
// Start looks again.
Status CheckCanListen(const HttpOptions& options);

class HttpServer {
 public:
  // Listens and serves when it returns. A port that is taken: an error that names the port and the flag.
  static StatusOr<std::unique_ptr<HttpServer>> Start(std::shared_ptr<const Service> service,
                                                     const HttpOptions& options);
  ~HttpServer();  // Stop()

  int port() const;          // the real one
  int metrics_port() const;  // the real one; port() when /metrics is on the main port
  std::string url() const;   // "http://127.0.0.1:8000"

  // Readiness goes: /health and new requests get 503; what runs goes on. Idle connections close.
  void BeginDrain();
  // True when no request is in flight any more, false at the deadline.
  bool WaitIdle(Clock::time_point deadline);
  // Ends what still runs (streams get an SSE error event), closes all connections, joins all threads. The
  // engine may be destroyed after it.
  void Stop();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fd
