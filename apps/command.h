// What every subcommand of `fastdeploy` is and how it reports failure.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace fd {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitDeviceLost =
    3;  // the GPU or the engine failed; a supervisor should start the program again
inline constexpr int kExitInterrupted = 130;  // SIGINT, as shells have it

struct Command {
  const char* name;
  const char* summary;
  // args: what follows the command's name. Returns the exit code.
  int (*run)(const std::vector<std::string>& args);
};

// "fastdeploy NAME: message" on standard error; returns the exit code.
int UsageError(const char* command, const Status& status);
int Failure(const char* command, const Status& status);

int RunServe(const std::vector<std::string>& args);
int RunRun(const std::vector<std::string>& args);
int RunChat(const std::vector<std::string>& args);
int RunBench(const std::vector<std::string>& args);
int RunQuantize(const std::vector<std::string>& args);
int RunInspect(const std::vector<std::string>& args);
int RunReplay(const std::vector<std::string>& args);
int RunDoctor(const std::vector<std::string>& args);

}  // namespace fd
