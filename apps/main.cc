// fastdeploy: one program, a table of subcommands.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/fault.h"
#include "base/files.h"
#include "base/strings.h"
#include "base/suggestion.h"
#include "command.h"
#include "compute/tensor/device_error.h"
#include "flag_set.h"

namespace fd {
namespace {

constexpr Command kCommands[] = {
    {"serve", "serve a model behind the OpenAI API", RunServe},
    {"run", "ask a model one question from the terminal", RunRun},
    {"chat", "talk with a model: turns, pictures, videos", RunChat},
    {"bench", "measure prefill and decode speed against the machine's limits", RunBench},
    {"quantize", "write a checkpoint with packed weights, quantised or as stored", RunQuantize},
    {"replay", "compute a record of serve --record once more and compare", RunReplay},
    {"inspect", "print what is in a checkpoint", RunInspect},
    {"doctor", "print what this machine has, what would be used and what is wrong", RunDoctor},
};

std::string Usage() {
  std::string text = "FastDeploy.cpp " FASTDEPLOY_VERSION
                     ": serves ERNIE-4.5 models behind an OpenAI-compatible API.\n\nUsage: fastdeploy "
                     "COMMAND [MODEL] [FLAGS]\n\n";
  for (const Command& command : kCommands) {
    text += StrCat("  ", command.name, std::string(12 - std::string(command.name).size(), ' '),
                   command.summary, "\n");
  }
  text +=
      "\n  fastdeploy COMMAND --help lists the flags of a command; fastdeploy --version prints the "
      "version.\n\n"
      "Example:\n"
      "  fastdeploy run models/ernie-4.5-vl-tiny \"What is 12 + 30?\"\n"
      "  fastdeploy serve --model models/ernie-4.5-vl-tiny --port 8180\n";
  return text;
}

// A device may also be lost outside the engine's steps: while weights load, in a measurement.
int Run(const Command& command, const std::vector<std::string>& args) {
  const char* faults = std::getenv("FASTDEPLOY_FAULT");
  if (Status status = SetFaults(faults != nullptr ? faults : ""); !status.ok())
    return UsageError(command.name, status);
  try {
    return command.run(args);
  } catch (const DeviceError& e) {
    Failure(command.name, Unavailable(StrCat("the device is lost: ", e.what())));
    return kExitDeviceLost;
  }
}

int Main(const std::vector<std::string>& args) {
  if (args.empty()) {
    std::fputs(Usage().c_str(), stderr);
    return kExitUsage;
  }
  const std::string& name = args[0];
  if (name == "--help" || name == "-h" || name == "help") {
    std::fputs(Usage().c_str(), stdout);
    return kExitOk;
  }
  if (name == "--version" || name == "version") {
    std::puts("fastdeploy " FASTDEPLOY_VERSION);
    return kExitOk;
  }
  std::vector<std::string> names = {"--help", "--version"};
  for (const Command& command : kCommands) {
    if (name == command.name) return Run(command, {args.begin() + 1, args.end()});
    names.push_back(command.name);
  }
  std::string near = DidYouMean(name, names);
  std::fputs(
      StrCat("fastdeploy: unknown command '", name, "'",
             near.empty() ? std::string("; see fastdeploy --help") : StrCat("; did you mean '", near, "'?"),
             "\n")
          .c_str(),
      stderr);
  return kExitUsage;
}

}  // namespace

int UsageError(const char* command, const Status& status) {
  std::fputs(StrCat("fastdeploy ", command, ": ", status.message(), "\n").c_str(), stderr);
  return kExitUsage;
}

int Failure(const char* command, const Status& status) {
  std::fputs(StrCat("fastdeploy ", command, ": ", status.message(), "\n").c_str(), stderr);
  return kExitFailure;
}

}  // namespace fd

int main(int argc, char** argv) {
  // Whoever started the program without these three: the next file that is opened would get the log's lines.
  for (int i = STDIN_FILENO; i <= STDERR_FILENO; ++i) {
    if (fcntl(i, F_GETFD) < 0 && open("/dev/null", i == STDIN_FILENO ? O_RDONLY : O_WRONLY) != i)
      return fd::kExitFailure;
  }
  fd::ExplainMappedFileErrors(fd::kExitFailure);
  // The kernels need these two; without them the first picture would end in an illegal instruction. doctor
  // runs none and explains.
  const bool is_doctor = argc > 1 && std::string(argv[1]) == "doctor";
  if (!is_doctor && (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))) {
    std::fputs(
        "fastdeploy: this processor has no AVX2 and FMA, which the CPU kernels need (Intel since 2013, AMD "
        "since 2015)\n",
        stderr);
    return fd::kExitFailure;
  }
  return fd::Main({argv + 1, argv + argc});
}
