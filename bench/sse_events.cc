// How many server-sent events a core of the HTTP server writes: the whole of src/server in this process, with
// an engine that makes up tokens as fast as they are asked for, and all clients in a child process that
// counts what arrives. The cost is the CPU time of the server's threads; the engine's thread, which only
// fills inboxes, is shown beside it.
//
//   bench_sse_events [--streams 128] [--window 8] [--tokens 2000] [--rounds 3] [--path /v1/chat/completions]
//
// window: how many events of a stream may be on their way. With 1 every event is a write of its own; with
// more, those that wait share one, as they do in a server under load.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "server/http/http_server.h"
#include "server/openai/fakes_for_tests.h"

namespace fd {
namespace {

struct Args {
  int streams = 128;
  int64_t window = 8;
  int64_t tokens = 2000;
  int rounds = 3;
  std::string path = "/v1/chat/completions";
};

// Between the two processes.
struct Shared {
  std::atomic<int> port{0};
  std::atomic<int64_t> received{0};  // events of the present round
  std::atomic<int> round{0};         // the clients ask when it goes up
  std::atomic<int> finished{0};      // rounds that are over
  std::atomic<int64_t> bytes{0};
};

// A token is a word: texts as long as a model's.
class WordTokenizer : public ByteTokenizer {
 public:
  std::string TokenBytes(int32_t id, bool skip_special) const override {
    return id < 256 ? " word" : ByteTokenizer::TokenBytes(id, skip_special);
  }
};

double ThreadSeconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
double ProcessSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// A step gives a token to every sequence, when fewer than `window` of each are on their way.
class EagerEngine {
 public:
  EagerEngine(const Args& args, Shared* shared) : args_(args), shared_(shared), thread_([this] { Loop(); }) {}
  ~EagerEngine() {
    stop_ = true;
    thread_.join();
  }
  EngineDoor Door() {
    return {[this](GenerateRequest r) {
              std::lock_guard lock(mutex_);
              running_.push_back({std::move(r), 0});
              return OkStatus();
            },
            [](RequestId) {}, [] { return EngineStats{}; }, [] { return Clock::now(); }, [] {}};
  }
  // Of filling inboxes, and of the thread in all.
  double cpu_seconds() const { return cpu_seconds_; }
  double ThreadTotal() {
    clockid_t clock{};
    timespec t{};
    if (pthread_getcpuclockid(thread_.native_handle(), &clock) != 0) return 0;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }

 private:
  struct Running {
    GenerateRequest request;
    int64_t generated = 0;
  };
  void Loop() {
    while (!stop_) {
      std::unique_lock lock(mutex_);
      const bool all_here = running_.size() == static_cast<size_t>(args_.streams);
      // Each stream has sent its role and its tokens so far.
      const int64_t sent = all_here ? args_.streams * (1 + running_.front().generated) : 0;
      const int64_t on_their_way = all_here && running_.front().generated > 0 ? sent - shared_->received : 0;
      if (!all_here || on_their_way > args_.streams * (args_.window - 1)) {
        lock.unlock();
        usleep(20);
        continue;
      }
      const double begin = ThreadSeconds();
      for (Running& r : running_) {
        TokenEvent event;
        event.request_id = r.request.id;
        event.scheduled_at = r.request.arrived_at;
        event.token_ids = {static_cast<int32_t>('a' + r.generated % 26)};
        if (++r.generated == args_.tokens) event.finish_reason = FinishReason::kLength;
        r.request.sink(std::move(event));
      }
      if (running_.front().generated == args_.tokens) running_.clear();
      cpu_seconds_ = cpu_seconds_ + ThreadSeconds() - begin;
    }
  }

  const Args args_;
  Shared* const shared_;
  std::mutex mutex_;
  std::vector<Running> running_;
  std::atomic<double> cpu_seconds_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// Counts the ends of events ("\n\n"), wherever the reads cut them.
int Clients(const Args& args, Shared* shared) {
  while (shared->port == 0) usleep(1000);
  std::vector<int> sockets;
  const int poller = epoll_create1(0);
  for (int i = 0; i < args.streams; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<uint16_t>(shared->port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof(a)) != 0) return 1;
    epoll_event e{};
    e.events = EPOLLIN;
    e.data.fd = fd;
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    sockets.push_back(fd);
  }
  const std::string body =
      StrCat(args.path.find("chat") != std::string::npos ? R"({"messages":[{"role":"user","content":"a"}])"
                                                         : R"({"prompt":"a")",
             R"(,"stream":true,"ignore_eos":true,"max_tokens":)", args.tokens, "}");
  const std::string request = StrCat(
      "POST ", args.path,
      " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ", body.size(),
      "\r\n\r\n", body);
  std::vector<char> buffer(1 << 20);
  std::map<int, std::string> tails;
  constexpr std::string_view kLast = "\r\n0\r\n\r\n";
  for (int round = 1; round <= args.rounds; ++round) {
    while (shared->round < round) usleep(100);
    for (const int fd : sockets) {
      if (send(fd, request.data(), request.size(), 0) != static_cast<ssize_t>(request.size())) return 1;
    }
    int open = args.streams;
    while (open > 0) {
      epoll_event events[256];
      const int count = epoll_wait(poller, events, 256, 20'000);
      if (count <= 0) return 1;
      for (int i = 0; i < count; ++i) {
        // What the read before left off: a line feed that may be half of an end, and the last bytes.
        std::string& tail = tails[events[i].data.fd];
        const bool half = tail.ends_with('\n') && !tail.ends_with("\n\n");
        const size_t kept = half ? 1 : 0;
        buffer[0] = '\n';
        const ssize_t n = recv(events[i].data.fd, buffer.data() + kept, buffer.size() - kept, 0);
        if (n <= 0) return 1;
        const std::string_view bytes(buffer.data(), kept + static_cast<size_t>(n));
        int64_t found = 0;
        for (size_t at = bytes.find("\n\n"); at != std::string_view::npos; at = bytes.find("\n\n", at + 2))
          ++found;
        shared->received += found;
        shared->bytes += n;
        tail += bytes.substr(bytes.size() - std::min<size_t>(bytes.size() - kept, kLast.size()));
        if (tail.size() > kLast.size()) tail.erase(0, tail.size() - kLast.size());
        if (tail == kLast) --open;
      }
    }
    shared->finished = round;
  }
  return 0;
}

int Run(const Args& args) {
  // The child is made before there is any thread.
  auto* shared =
      new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Shared;
  const pid_t child = fork();
  if (child == 0) _exit(Clients(args, shared));
  ScriptedEngine unused("", std::chrono::milliseconds(500));
  EagerEngine engine(args, shared);
  const auto service = TestService(unused);
  service->tokenizer = std::make_shared<WordTokenizer>();
  service->max_model_len = 1 << 24;
  service->engine = engine.Door();
  HttpOptions options;
  options.port = 0;
  options.access_log = false;
  auto server = HttpServer::Start(service, options);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().message().c_str());
    return 1;
  }
  shared->port = (*server)->port();
  int status = 0;
  for (int round = 1; round <= args.rounds; ++round) {
    shared->received = 0;
    shared->bytes = 0;
    const double engine_before = engine.cpu_seconds(), thread_before = engine.ThreadTotal();
    const double process_before = ProcessSeconds(), main_before = ThreadSeconds();
    const auto begin = Clock::now();
    shared->round = round;
    while (shared->finished < round) {
      usleep(5000);
      if (waitpid(child, &status, WNOHANG) == child && shared->finished < round) {
        std::fprintf(stderr, "the clients failed\n");
        return 1;
      }
    }
    const double wall = std::chrono::duration<double>(Clock::now() - begin).count();
    const double engine_cpu = engine.cpu_seconds() - engine_before;
    // The engine's thread also waits for its clients, which is nobody's cost.
    const double server_cpu = ProcessSeconds() - process_before - (ThreadSeconds() - main_before) -
                              (engine.ThreadTotal() - thread_before);
    const int64_t events = shared->received;
    const int64_t expected = args.streams * (args.tokens + 3);  // the role, the end, [DONE]
    std::printf(
        "{\"bench\":\"sse_events\",\"streams\":%d,\"window\":%lld,\"events\":%lld,\"expected\":%lld,\"bytes_"
        "per_event\":%.0f,"
        "\"wall_s\":%.3f,\"server_cpu_s\":%.3f,\"engine_cpu_s\":%.3f,\"events_per_core_s\":%.0f,"
        "\"events_per_core_s_with_engine\":%.0f}\n",
        args.streams, static_cast<long long>(args.window), static_cast<long long>(events),
        static_cast<long long>(expected), static_cast<double>(shared->bytes) / static_cast<double>(events),
        wall, server_cpu, engine_cpu, static_cast<double>(events) / server_cpu,
        static_cast<double>(events) / (server_cpu + engine_cpu));
    if (events != expected) return 1;
  }
  waitpid(child, &status, 0);
  return 0;
}

}  // namespace
}  // namespace fd

int main(int argc, char** argv) {
  fd::Args args;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--streams") {
      args.streams = std::atoi(argv[i + 1]);
    } else if (name == "--window") {
      args.window = std::atoll(argv[i + 1]);
    } else if (name == "--tokens") {
      args.tokens = std::atoll(argv[i + 1]);
    } else if (name == "--rounds") {
      args.rounds = std::atoi(argv[i + 1]);
    } else if (name == "--path") {
      args.path = argv[i + 1];
    } else {
      std::fprintf(stderr, "unknown flag %s\n", name.c_str());
      return 2;
    }
  }
  return fd::Run(args);
}
