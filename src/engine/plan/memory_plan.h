// How much memory goes where, and so how many key/value pages there are. Plain arithmetic before anything is
// allocated; the start log prints it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/status.h"
#include "engine/plan/options.h"

namespace fd {

// What the plan is made from; all in bytes.
struct MemoryNeeds {
  int64_t available_bytes = 0;       // what this process may use in all, weights included
  double utilization = 0.9;          // --gpu-memory-utilization: the share of it that may be used
  int64_t weight_bytes = 0;          // OpenedModel::weight_bytes
  int64_t page_bytes = 0;            // KvBytesPerPage
  int64_t executor_bytes = 0;        // ExecutorBytes: step buffers
  int64_t encoder_bytes = 0;         // EncoderSlabBytes: encoder outputs
  int64_t workspace_bytes = 0;       // scratch of a forward pass
  int64_t swap_bytes = 0;            // host pages, of page_bytes each
  bool device_is_host = true;        // they lie in the same memory as all else
  int64_t host_available_bytes = 0;  // else: where they lie; 0: unknown
};

struct MemoryPlan {
  MemoryNeeds needs;
  int64_t num_kv_pages = 0;
  int64_t kv_bytes = 0;
  int64_t kv_tokens = 0;
  double full_sequences = 0;  // sequences of max_model_len that fit at once
  // Of the device's memory.
  int64_t total_bytes() const {
    return needs.weight_bytes + kv_bytes + needs.executor_bytes + needs.encoder_bytes +
           needs.workspace_bytes + (needs.device_is_host ? needs.swap_bytes : 0);
  }
  // One line for the start log: each part, the sum, and what it is a share of.
  std::string Summary() const;
};

// What options need besides weights and pages; utilization and the rest stay as they are.
using NeedsOf = std::function<MemoryNeeds(const EngineOptions&)>;

// options.num_host_pages are taken as they are; an error when their memory does not hold them.
// options.num_kv_pages > 0 (--num-kv-pages) is taken as it is when it fits into memory; 0: as many pages as
// the share of memory leaves, but never more than max_num_seqs sequences of max_model_len can use. An error,
// with the sum, what is missing and what would help, when not even one sequence of max_model_len fits: of
// each flag that could be lowered alone, how far.
StatusOr<MemoryPlan> PlanMemory(const NeedsOf& needs_of, const EngineOptions& options);

// The longest max_model_len below options' that fits, a multiple of a page; 0 when none does.
int64_t LongestModelLen(const NeedsOf& needs_of, const EngineOptions& options);

// Host memory this process can still get: the kernel's MemAvailable or what its cgroup (v1 or v2, with its
// parents) has left, page cache that can be dropped counted as free; whichever is less. 0 when unknown.
// `root` is "" in service; tests put a tree of their own there.
int64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace fd
