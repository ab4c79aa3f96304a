// Row-major out[m, n] = in[m, k] W[n, k]^T is, read by columns, out[n, m] = W[k, n]^T in[k, m].
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <optional>

#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/cuda/values.cuh"

#define FD_CUBLAS_CHECK(call)                                                                   \
  do {                                                                                          \
    const cublasStatus_t fd_status = (call);                                                    \
    if (fd_status != CUBLAS_STATUS_SUCCESS) [[unlikely]]                                        \
      ::fd::cuda::ThrowDeviceError(__FILE__, __LINE__, #call, cublasLtGetStatusName(fd_status), \
                                   cublasLtGetStatusString(fd_status));                         \
  } while (0)

namespace fd::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA advises for Hopper

cudaDataType TypeOf(DType t) { return t == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF; }

// The largest power of two up to 16 that divides the address.
int64_t AlignmentOf(const void* p) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p) | 16;
  return static_cast<int64_t>(address & (~address + 1));
}

using Key = std::array<int64_t, 12>;

class LtState {
 public:
  LtState() { FD_CUBLAS_CHECK(cublasLtCreate(&handle_)); }

  void* WorkspaceOf(cudaStream_t stream) {
    void*& workspace = workspaces_[stream];
    if (workspace == nullptr) FD_CUDA_CHECK(cudaMalloc(&workspace, kWorkspaceBytes));
    return workspace;
  }
  cublasLtHandle_t handle() const { return handle_; }
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>>& algorithms() { return algorithms_; }

 private:
  cublasLtHandle_t handle_ = nullptr;
  std::map<cudaStream_t, void*> workspaces_;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

std::mutex mutex;

// Lives as long as the process: its destruction would come after the driver's.
LtState& StateOfCurrentDevice() {
  static auto* const states = new std::map<int, LtState>();
  int device = 0;
  FD_CUDA_CHECK(cudaGetDevice(&device));
  return (*states)[device];
}

struct Problem {
  cublasLtMatmulDescOpaque_t desc;
  cublasLtMatrixLayoutOpaque_t weight, in, out;
};

void Describe(const LinearArgs& a, int64_t m, Problem* p) {
  FD_CUBLAS_CHECK(cublasLtMatmulDescInit(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t transpose = CUBLAS_OP_T;
  FD_CUBLAS_CHECK(
      cublasLtMatmulDescSetAttribute(&p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose, sizeof(transpose)));
  if (a.bias != nullptr) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    FD_CUBLAS_CHECK(
        cublasLtMatmulDescSetAttribute(&p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof(epilogue)));
    FD_CUBLAS_CHECK(
        cublasLtMatmulDescSetAttribute(&p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &a.bias, sizeof(a.bias)));
    const cudaDataType type = TypeOf(a.bias_type);
    FD_CUBLAS_CHECK(
        cublasLtMatmulDescSetAttribute(&p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof(type)));
  }
  const auto size = [](int64_t v) { return static_cast<uint64_t>(v); };
  // The stride of a single row says nothing, but the library wants it to be as long as the row.
  const int64_t in_stride = std::max(a.in_stride, a.k), out_stride = std::max(a.out_stride, a.n);
  FD_CUBLAS_CHECK(cublasLtMatrixLayoutInit(&p->weight, TypeOf(a.weight_type), size(a.k), size(a.n), a.k));
  FD_CUBLAS_CHECK(cublasLtMatrixLayoutInit(&p->in, TypeOf(a.in_type), size(a.k), size(m), in_stride));
  FD_CUBLAS_CHECK(cublasLtMatrixLayoutInit(&p->out, TypeOf(a.out_type), size(a.n), size(m), out_stride));
}

std::optional<cublasLtMatmulAlgo_t> ChooseAlgorithm(cublasLtHandle_t handle, const LinearArgs& a,
                                                    int64_t rows) {
  Problem p;
  Describe(a, rows, &p);
  cublasLtMatmulPreferenceOpaque_t preference;
  FD_CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
    FD_CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  // Parts of a sum cut over k are added in float32, never in the output's type.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(AlignmentOf(a.weight)));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(AlignmentOf(a.in)));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(AlignmentOf(a.out)));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(AlignmentOf(a.out)));
  cublasLtMatmulHeuristicResult_t result;
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, &p.desc, &p.weight, &p.in, &p.out,
                                                               &p.out, &preference, 1, &result, &found);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) return std::nullopt;
  return result.algo;
}

}  // namespace

void PrepareLinear(void* stream) {
  const std::lock_guard<std::mutex> lock(mutex);
  StateOfCurrentDevice().WorkspaceOf(AsStream(stream));
}

bool LinearLt(const LinearArgs& a, void* stream) {
  if (a.in_type != a.weight_type || (a.bias != nullptr && a.bias_type != a.out_type)) return false;
  if (a.in_type == DType::kFloat32 && a.out_type != DType::kFloat32) return false;
  // For rows off 16 bytes, of the input or of the output, the library rounds to bfloat16 before it adds the
  // bias. No model has such rows.
  if (a.in_type == DType::kBFloat16 &&
      (a.k % 8 != 0 || a.in_stride % 8 != 0 || AlignmentOf(a.in) < 16 || AlignmentOf(a.weight) < 16)) {
    return false;
  }
  if (a.bias != nullptr && a.out_type == DType::kBFloat16 &&
      (a.out_stride % 8 != 0 || AlignmentOf(a.out) < 16)) {
    return false;
  }
  const int64_t rows = LinearRowClass(a.m);
  const Key key = {rows,
                   a.n,
                   a.k,
                   a.in_stride,
                   a.out_stride,
                   static_cast<int64_t>(a.in_type),
                   static_cast<int64_t>(a.out_type),
                   a.bias != nullptr,
                   AlignmentOf(a.weight),
                   AlignmentOf(a.in),
                   AlignmentOf(a.out),
                   a.bias != nullptr ? AlignmentOf(a.bias) : 0};
  std::optional<cublasLtMatmulAlgo_t> algorithm;
  void* workspace = nullptr;
  cublasLtHandle_t handle = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    LtState& state = StateOfCurrentDevice();
    handle = state.handle();
    workspace = state.WorkspaceOf(AsStream(stream));
    auto it = state.algorithms().find(key);
    if (it == state.algorithms().end())
      it = state.algorithms().emplace(key, ChooseAlgorithm(handle, a, rows)).first;
    algorithm = it->second;
  }
  if (!algorithm) return false;
  Problem p;
  Describe(a, a.m, &p);
  const float one = 1.0f, zero = 0.0f;
  FD_CUBLAS_CHECK(cublasLtMatmul(handle, &p.desc, &one, a.weight, &p.weight, a.in, &p.in, &zero, a.out,
                                 &p.out, a.out, &p.out, &*algorithm, workspace, kWorkspaceBytes,
                                 AsStream(stream)));
  return true;
}

}  // namespace fd::cuda
