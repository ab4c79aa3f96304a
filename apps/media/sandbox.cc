#include "media/sandbox.h"

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/strings.h"

namespace fd {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitizer = true;  // maps terabytes of address space, and reads /proc to report
#else
constexpr bool kSanitizer = false;
#endif

Status Refused(const char* what, int error) {
  return Unavailable(
      StrCat("videos cannot be decoded on this machine: the sandbox of fastdeploy-media failed in ", what,
             " (", std::strerror(error), "); the kernel or the container must allow seccomp filters"));
}

bool Limit(__rlimit_resource resource, int64_t value) {
  const auto number = static_cast<rlim_t>(value);
  rlimit limit = {number, number};
  rlimit now = {};
  // A limit that is lower already stays.
  if (getrlimit(resource, &now) == 0 && now.rlim_max < number) limit = {now.rlim_max, now.rlim_max};
  return setrlimit(resource, &limit) == 0;
}

// Adds rules to one filter; remembers the first failure.
class Filter {
 public:
  explicit Filter(uint32_t default_action) : context_(seccomp_init(default_action)) {
    if (context_ == nullptr) error_ = ENOMEM;
  }
  ~Filter() {
    if (context_ != nullptr) seccomp_release(context_);
  }
  Filter(const Filter&) = delete;
  Filter& operator=(const Filter&) = delete;

  template <typename... Conditions>
  void Add(uint32_t action, int call, Conditions... conditions) {
    if (error_ != 0 || call == __NR_SCMP_ERROR) return;
    const int result = seccomp_rule_add(context_, action, call, sizeof...(conditions), conditions...);
    // A call that this architecture does not have needs no rule.
    if (result < 0 && result != -EDOM) error_ = -result;
  }
  int Load() {
    if (error_ != 0) return error_;
    const int result = seccomp_load(context_);
    return result < 0 ? -result : 0;
  }

 private:
  scmp_filter_ctx context_;
  int error_ = 0;
};

void AddAllowed(Filter& filter) {
  for (int call : {SCMP_SYS(brk),
                   SCMP_SYS(munmap),
                   SCMP_SYS(mremap),
                   SCMP_SYS(madvise),  // memory
                   SCMP_SYS(futex),
                   SCMP_SYS(set_robust_list),
                   SCMP_SYS(rseq),
                   SCMP_SYS(sched_yield),  // threads
                   SCMP_SYS(sched_getaffinity),
                   SCMP_SYS(gettid),
                   SCMP_SYS(getpid),
                   SCMP_SYS(membarrier),
                   SCMP_SYS(getcpu),
                   SCMP_SYS(sysinfo),
                   SCMP_SYS(getrandom),
                   SCMP_SYS(clock_gettime),
                   SCMP_SYS(clock_getres),
                   SCMP_SYS(gettimeofday),
                   SCMP_SYS(time),  // clock
                   SCMP_SYS(nanosleep),
                   SCMP_SYS(clock_nanosleep),
                   SCMP_SYS(restart_syscall),
                   SCMP_SYS(rt_sigaction),
                   SCMP_SYS(rt_sigprocmask),
                   SCMP_SYS(rt_sigreturn),
                   SCMP_SYS(sigaltstack),
                   SCMP_SYS(exit),
                   SCMP_SYS(exit_group),
                   SCMP_SYS(read),
                   SCMP_SYS(close)}) {
    filter.Add(SCMP_ACT_ALLOW, call);
  }
  // Frames leave through 1; glibc says on 2 why it ends a process.
  for (unsigned fd : {1u, 2u}) {
    filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(write), SCMP_A0(SCMP_CMP_EQ, fd));
    filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(writev), SCMP_A0(SCMP_CMP_EQ, fd));
  }
  // Memory never becomes code.
  filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
  // A thread of this process, and nothing else that clone makes. glibc's signal for abort() goes to itself.
  constexpr uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
  constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                   CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE | CLONE_VFORK;
  filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, kThread | kNamespaces, kThread));
  filter.Add(SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3));
  filter.Add(SCMP_ACT_ALLOW, SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, static_cast<uint64_t>(getpid())));
  if (kSanitizer) {
    for (int call : {SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(write), SCMP_SYS(openat), SCMP_SYS(open),
                     SCMP_SYS(readlink), SCMP_SYS(prctl), SCMP_SYS(fstat), SCMP_SYS(newfstatat),
                     SCMP_SYS(lseek), SCMP_SYS(getdents64), SCMP_SYS(mmap)}) {
      filter.Add(SCMP_ACT_ALLOW, call);
    }
  }
}

void AddDeadly(Filter& filter) {
  for (int call : {SCMP_SYS(execve),
                   SCMP_SYS(execveat),
                   SCMP_SYS(fork),
                   SCMP_SYS(vfork),
                   SCMP_SYS(ptrace),
                   SCMP_SYS(process_vm_readv),
                   SCMP_SYS(process_vm_writev),
                   SCMP_SYS(socket),
                   SCMP_SYS(socketpair),
                   SCMP_SYS(connect),
                   SCMP_SYS(bind),
                   SCMP_SYS(listen),
                   SCMP_SYS(accept),
                   SCMP_SYS(accept4),
                   SCMP_SYS(sendto),
                   SCMP_SYS(sendmsg),
                   SCMP_SYS(sendmmsg),
                   SCMP_SYS(recvmsg),
                   SCMP_SYS(mount),
                   SCMP_SYS(umount2),
                   SCMP_SYS(unshare),
                   SCMP_SYS(setns),
                   SCMP_SYS(bpf),
                   SCMP_SYS(userfaultfd),
                   SCMP_SYS(io_uring_setup),
                   SCMP_SYS(perf_event_open),
                   SCMP_SYS(keyctl),
                   SCMP_SYS(add_key),
                   SCMP_SYS(init_module),
                   SCMP_SYS(finit_module),
                   SCMP_SYS(kexec_load),
                   SCMP_SYS(setuid),
                   SCMP_SYS(kill),
                   SCMP_SYS(tkill)}) {
    filter.Add(SCMP_ACT_KILL_PROCESS, call);
  }
}

}  // namespace

Status EnterSandbox(const SandboxLimits& limits) {
  if (close_range(3, ~0u, 0) != 0) {
    for (int fd = 3; fd < 1024; ++fd) close(fd);  // a kernel before 5.9
  }
  // A debugger, a core file and /proc/PID/mem of the same user see nothing.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return Refused("PR_SET_DUMPABLE", errno);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Refused("PR_SET_NO_NEW_PRIVS", errno);
  const bool limited = Limit(RLIMIT_CPU, limits.cpu_seconds) && Limit(RLIMIT_CORE, 0) &&
                       Limit(RLIMIT_FSIZE, 0) &&
                       (kSanitizer || (Limit(RLIMIT_NOFILE, 3) && Limit(RLIMIT_AS, limits.memory_bytes)));
  if (!limited) return Refused("setrlimit", errno);
  Filter filter(SCMP_ACT_ERRNO(EPERM));
  AddAllowed(filter);
  AddDeadly(filter);
  if (const int error = filter.Load(); error != 0) return Refused("seccomp", error);
  return OkStatus();
}

}  // namespace fd
