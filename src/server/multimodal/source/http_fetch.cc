#include "server/multimodal/source/http_fetch.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/strings.h"
#include "server/multimodal/source/address_policy.h"
#include "server/multimodal/source/curl_library.h"
#include "server/multimodal/source/http_url.h"
#include "server/multimodal/source/media_type.h"
#include "server/multimodal/source/url_text.h"

namespace fd {
namespace {

constexpr int kMaxAttempts = 3;
constexpr std::chrono::milliseconds kFirstPause{200};
constexpr int64_t kMaxHeaderBytes = 64 * 1024;
constexpr int64_t kLowSpeedBytesPerSecond = 1000;
constexpr int64_t kLowSpeedSeconds = 10;
// How long a wait for the network may last before stop and deadline are looked at again.
constexpr int kPollMs = 100;
constexpr const char* kNoAddress = "the media URL's host has no public address; only those are fetched";

struct EasyDeleter {
  void operator()(CURL* easy) const { Curl().easy_cleanup(easy); }
};
struct MultiDeleter {
  void operator()(CURLM* multi) const { Curl().multi_cleanup(multi); }
};
struct ListDeleter {
  void operator()(curl_slist* list) const { Curl().slist_free_all(list); }
};
using CurlList = std::unique_ptr<curl_slist, ListDeleter>;

CurlList MakeList(const std::vector<std::string>& lines) {
  curl_slist* list = nullptr;
  for (const std::string& line : lines) list = Curl().slist_append(list, line.c_str());
  return CurlList(list);
}

// Everything that the hops of one fetch share.
struct Fetch {
  const MediaPolicy& policy;
  const FetchHooks& hooks;
  int64_t max_bytes;
  std::string_view limit_flag;
  std::stop_token stop;
  Clock::time_point deadline;
};

std::string Seconds(double seconds) {
  return StrCat(Fixed(seconds, seconds == std::floor(seconds) ? 0 : 2), " s");
}

Status TooLarge(const Fetch& fetch, int64_t announced_bytes) {
  return {StatusCode::kPayloadTooLarge,
          StrCat("the media URL's file has ",
                 announced_bytes > 0 ? StrCat(announced_bytes, " bytes") : std::string("too many bytes"),
                 "; the limit is ", fetch.max_bytes, " (", fetch.limit_flag, ")")};
}

Status OutOfTime(const Fetch& fetch) {
  return InvalidArgument(StrCat("the media URL's file did not arrive within ",
                                Seconds(fetch.policy.total_timeout_s), " (--media-fetch-timeout)"));
}

Status OutOfMemory() { return Unavailable("no memory is left to fetch media with"); }

Status Stopped() { return Unavailable("the request ended while its media were fetched"); }

// One request on one connection of its own. Callbacks run inside Run, on its thread.
class Transfer {
 public:
  explicit Transfer(const Fetch& fetch) : fetch_(fetch) {}

  // OK: an answer came, whole or up to the point where it was of no use (see status() and location()).
  Status Run(const HttpUrl& url, int hop);

  // Whether another attempt may do better.
  bool may_retry() const { return may_retry_; }
  long http_status() const { return http_status_; }
  bool is_redirect() const { return IsRedirect(http_status_) && !location_.empty(); }
  const std::string& location() const { return location_; }
  MediaBytes TakeBody() { return {media_type_, std::move(body_)}; }

 private:
  static bool IsRedirect(long status) {
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
  }
  static curl_socket_t OnSocket(void* self, curlsocktype purpose, curl_sockaddr* address) {
    curl_socket_t opened = CURL_SOCKET_BAD;
    static_cast<Transfer*>(self)->Guard([&](Transfer& t) {
      opened = t.OpenSocket(purpose, address);
      return true;
    });
    return opened;
  }
  static size_t OnHeader(char* data, size_t one, size_t size, void* self) {
    const std::string_view line(data, one * size);
    return static_cast<Transfer*>(self)->Guard([&](Transfer& t) { return t.TakeHeader(line); }) ? line.size()
                                                                                                : 0;
  }
  static size_t OnBody(char* data, size_t one, size_t size, void* self) {
    const std::string_view bytes(data, one * size);
    return static_cast<Transfer*>(self)->Guard([&](Transfer& t) { return t.TakeBytes(bytes); }) ? bytes.size()
                                                                                                : 0;
  }
  // An exception must not pass through libcurl, whose handles would never be freed.
  template <typename Act>
  bool Guard(Act act) noexcept {
    try {
      return act(*this);
    } catch (const std::exception&) {  // bad_alloc, length_error
      out_of_memory_ = true;
      return false;
    }
  }

  curl_socket_t OpenSocket(curlsocktype purpose, const curl_sockaddr* address);
  bool TakeHeader(std::string_view line);
  bool TakeBytes(std::string_view bytes);
  bool Refuse(Status why) {
    refusal_ = std::move(why);
    return false;
  }
  void SetOptions(CURL* easy, const HttpUrl& url, curl_slist* headers, curl_slist* resolve);
  Status ErrorOf(CURL* easy, CURLcode code);

  const Fetch& fetch_;
  bool address_refused_ = false;
  bool may_retry_ = false;
  Status refusal_;  // why a callback ended the transfer
  bool out_of_memory_ = false;
  int64_t header_bytes_ = 0;
  int64_t content_length_ = -1;
  long http_status_ = 0;
  std::string media_type_;
  std::string location_;
  std::string body_;
};

curl_socket_t Transfer::OpenSocket(curlsocktype purpose, const curl_sockaddr* address) {
  // Once a name has led to a private address, none of its others is dialled either.
  const auto& allowed = fetch_.policy.public_endpoints_for_tests;
  const bool may_dial =
      purpose == CURLSOCKTYPE_IPCXN && !address_refused_ &&
      (IsPublicAddress(&address->addr, address->addrlen) || fetch_.policy.allow_private_addresses ||
       std::find(allowed.begin(), allowed.end(), EndpointText(&address->addr, address->addrlen)) !=
           allowed.end());
  if (!may_dial) {
    address_refused_ = true;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

bool Transfer::TakeHeader(std::string_view line) {
  header_bytes_ += static_cast<int64_t>(line.size());
  if (header_bytes_ > kMaxHeaderBytes) {
    return Refuse(InvalidArgument(
        StrCat("the media URL's server sends more than ", kMaxHeaderBytes, " bytes of headers")));
  }
  if (line.starts_with("HTTP/")) {  // also after an interim answer
    media_type_.clear();
    location_.clear();
    content_length_ = -1;
    http_status_ = line.size() >= 12
                       ? std::strtol(std::string(line.substr(line.find(' ') + 1, 3)).c_str(), nullptr, 10)
                       : 0;
    return true;
  }
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return true;
  const std::string name = LowerAscii(line.substr(0, colon));
  const std::string_view value = TrimUrlSpace(line.substr(colon + 1));
  if (name == "content-type") media_type_ = MediaTypeOf(value);
  if (name == "location") location_ = value;
  if (name == "content-length") content_length_ = std::strtoll(std::string(value).c_str(), nullptr, 10);
  if (name == "content-encoding" || name == "transfer-encoding") {
    const std::string coding = LowerAscii(value);
    const bool plain = coding.empty() || coding == "identity" || (name[0] == 't' && coding == "chunked");
    if (!plain) {
      return Refuse(InvalidArgument(StrCat("the media URL's server answers with ", name,
                                           ", which was not asked for; files are taken uncompressed")));
    }
  }
  return true;
}

// The first bytes of a body are the moment when all headers are known.
bool Transfer::TakeBytes(std::string_view bytes) {
  if (http_status_ != 200) return false;
  if (body_.empty()) {
    if (Status type = CheckMediaType(media_type_, "the media URL"); !type.ok()) return Refuse(type);
    if (content_length_ > 0) body_.reserve(static_cast<size_t>(std::min(content_length_, fetch_.max_bytes)));
  }
  if (static_cast<int64_t>(body_.size() + bytes.size()) > fetch_.max_bytes)
    return Refuse(TooLarge(fetch_, -1));
  // Grown by half, and in a new string, since reserve() doubles: while it moves, both are there at once.
  const size_t needed = body_.size() + bytes.size();
  if (needed > body_.capacity()) {
    std::string grown;
    grown.reserve(std::max(needed, body_.size() + body_.size() / 2));
    grown.append(body_);
    body_.swap(grown);
  }
  body_.append(bytes);
  return true;
}

void Transfer::SetOptions(CURL* easy, const HttpUrl& url, curl_slist* headers, curl_slist* resolve) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(fetch_.deadline - Clock::now());
  Curl().easy_setopt(easy, CURLOPT_URL, url.ToString().c_str());
  Curl().easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  Curl().easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  Curl().easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);  // hops are followed by FetchHttp
  Curl().easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  Curl().easy_setopt(easy, CURLOPT_PROXY, "");  // not the environment's either
  Curl().easy_setopt(easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  Curl().easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
  Curl().easy_setopt(easy, CURLOPT_USERAGENT, "fastdeploy");
  Curl().easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  Curl().easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  Curl().easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
  Curl().easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
  Curl().easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  Curl().easy_setopt(easy, CURLOPT_QUICK_EXIT,
                   1L);  // a stopped fetch does not wait for a name that is being resolved
  Curl().easy_setopt(easy, CURLOPT_MAXFILESIZE_LARGE, static_cast<curl_off_t>(fetch_.max_bytes));
  Curl().easy_setopt(easy, CURLOPT_TIMEOUT_MS, std::max<long>(static_cast<long>(left.count()), 1));
  Curl().easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                   std::max(std::lround(fetch_.policy.connect_timeout_s * 1000), 1L));
  Curl().easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(kLowSpeedBytesPerSecond));
  Curl().easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(kLowSpeedSeconds));
  Curl().easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &Transfer::OnSocket);
  Curl().easy_setopt(easy, CURLOPT_OPENSOCKETDATA, this);
  Curl().easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  Curl().easy_setopt(easy, CURLOPT_HEADERDATA, this);
  Curl().easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  Curl().easy_setopt(easy, CURLOPT_WRITEDATA, this);
  if (resolve != nullptr) Curl().easy_setopt(easy, CURLOPT_RESOLVE, resolve);
  if (!fetch_.hooks.ca_file.empty()) Curl().easy_setopt(easy, CURLOPT_CAINFO, fetch_.hooks.ca_file.c_str());
}

Status Transfer::Run(const HttpUrl& url, int hop) {
  std::unique_ptr<CURLM, MultiDeleter> multi(Curl().multi_init());
  const CurlList headers = MakeList({"Accept: image/*, video/*, */*;q=0.1", "Accept-Encoding: identity"});
  const CurlList resolve = fetch_.hooks.resolve ? MakeList(fetch_.hooks.resolve(hop)) : CurlList();
  std::unique_ptr<CURL, EasyDeleter> easy(Curl().easy_init());
  if (!multi || !easy || !headers) return OutOfMemory();
  SetOptions(easy.get(), url, headers.get(), resolve.get());

  Curl().multi_add_handle(multi.get(), easy.get());
  bool stopped = false;
  {
    const std::stop_callback wake(fetch_.stop, [&] { Curl().multi_wakeup(multi.get()); });
    int running = 1;
    while (Curl().multi_perform(multi.get(), &running) == CURLM_OK && running > 0) {
      stopped = fetch_.stop.stop_requested();
      if (stopped) break;
      if (Curl().multi_poll(multi.get(), nullptr, 0, kPollMs, nullptr) != CURLM_OK) break;
    }
  }
  CURLcode code = CURLE_RECV_ERROR;
  int left = 0;
  while (const CURLMsg* message = Curl().multi_info_read(multi.get(), &left)) {
    if (message->msg == CURLMSG_DONE) code = message->data.result;
  }
  const Status status = stopped ? Stopped() : ErrorOf(easy.get(), code);
  Curl().multi_remove_handle(multi.get(), easy.get());
  return status;
}

Status Transfer::ErrorOf(CURL* easy, CURLcode code) {
  if (out_of_memory_) return OutOfMemory();
  if (!refusal_.ok()) return refusal_;
  if (http_status_ != 0 && http_status_ != 200) {
    may_retry_ = http_status_ == 500 || (http_status_ >= 502 && http_status_ <= 504);
    return OkStatus();
  }
  switch (code) {
    case CURLE_OK:
      return OkStatus();
    case CURLE_FILESIZE_EXCEEDED:
      return TooLarge(fetch_, content_length_);
    case CURLE_COULDNT_RESOLVE_HOST:
      // The same words: a client must not learn which names a private network knows.
      return InvalidArgument(kNoAddress);
    case CURLE_OPERATION_TIMEDOUT: {
      // The library's clock may be ahead of ours by its rounding.
      if (Clock::now() + std::chrono::milliseconds(10) >= fetch_.deadline) return OutOfTime(fetch_);
      curl_off_t connect_us = 0;
      Curl().easy_getinfo(easy, CURLINFO_APPCONNECT_TIME_T, &connect_us);
      if (connect_us == 0) Curl().easy_getinfo(easy, CURLINFO_CONNECT_TIME_T, &connect_us);
      if (connect_us == 0) {
        return InvalidArgument(StrCat("the media URL's host took no connection within ",
                                      Seconds(fetch_.policy.connect_timeout_s),
                                      " (--media-connect-timeout)"));
      }
      return InvalidArgument(StrCat("the media URL's server sent less than ", kLowSpeedBytesPerSecond,
                                    " bytes a second for ", kLowSpeedSeconds, " s"));
    }
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CERTPROBLEM:
      return InvalidArgument("the media URL's server has no certificate that is valid for its name");
    case CURLE_COULDNT_CONNECT:
      if (address_refused_) return InvalidArgument(kNoAddress);
      may_retry_ = true;
      return InvalidArgument("the media URL's host takes no connection");
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
      may_retry_ = true;
      return InvalidArgument(StrCat("the media URL's server closed the connection after ", body_.size(),
                                    " bytes",
                                    content_length_ > 0 ? StrCat(" of ", content_length_) : std::string()));
    default:
      // A fixed sentence of libcurl without names or addresses.
      return InvalidArgument(StrCat("the media URL could not be fetched: ", Curl().easy_strerror(code)));
  }
}

// false: stopped, or no time is left.
bool Pause(const Fetch& fetch, std::chrono::milliseconds pause) {
  if (Clock::now() + pause >= fetch.deadline) return false;
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait_for(lock, fetch.stop, pause, [] { return false; });
  return !fetch.stop.stop_requested();
}

}  // namespace

StatusOr<MediaBytes> FetchHttp(std::string_view text, const MediaPolicy& policy, int64_t max_bytes,
                               std::string_view limit_flag, std::stop_token stop, const FetchHooks& hooks) {
  FD_RETURN_IF_ERROR(LoadCurl());
  const auto total =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(policy.total_timeout_s));
  const Fetch fetch{policy, hooks, max_bytes, limit_flag, stop, Clock::now() + total};
  std::string next(text);
  int attempts = 1;
  for (int hop = 0;; ++hop) {
    const auto in_hop = [hop](const Status& status) {
      return hop == 0 ? status
                      : status.WithContext(StrCat("after ", hop, hop == 1 ? " redirect" : " redirects"));
    };
    StatusOr<HttpUrl> url = ParseHttpUrl(next);
    if (!url.ok()) return in_hop(url.status());
    if (!DomainIsAllowed(*url, policy.allowed_domains)) {
      return in_hop(InvalidArgument("the media URL's host is not among those of --allowed-media-domains"));
    }
    std::optional<Transfer> transfer;
    while (true) {
      if (stop.stop_requested()) return Stopped();
      transfer.emplace(fetch);
      Status status = transfer->Run(*url, hop);
      const bool try_again = transfer->may_retry() && attempts < kMaxAttempts &&
                             Pause(fetch, kFirstPause * (1 << (attempts - 1)));
      if (stop.stop_requested()) return Stopped();
      if (try_again) {
        ++attempts;
        continue;
      }
      if (!status.ok()) return in_hop(status);
      break;
    }
    if (transfer->is_redirect()) {
      if (hop >= policy.max_redirects) {
        return InvalidArgument(StrCat("the media URL redirects more than ", policy.max_redirects,
                                      " times (--media-max-redirects)"));
      }
      next = ResolveReference(*url, transfer->location());
      continue;
    }
    if (transfer->http_status() != 200) {
      return in_hop(InvalidArgument(
          StrCat("the media URL's server answers with status ", transfer->http_status(), "; 200 is needed")));
    }
    MediaBytes media = transfer->TakeBody();
    if (media.bytes.empty()) return in_hop(InvalidArgument("the media URL's file is empty"));
    return media;
  }
}

}  // namespace fd
