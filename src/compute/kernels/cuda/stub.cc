// Stands in for device.cu in a build without CUDA.
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {
bool IsBuilt() { return false; }
int DeviceCount() { return 0; }
DeviceInfo GetDeviceInfo(int) { NotBuilt(__func__); }
void SetDevice(int) { NotBuilt(__func__); }
void* TryAllocate(int, int64_t) { NotBuilt(__func__); }
void* AllocateZeroed(int, int64_t) { NotBuilt(__func__); }
void Zero(int, void*, int64_t) { NotBuilt(__func__); }
void Free(int, void*) { NotBuilt(__func__); }
void* AllocatePinned(int64_t) { NotBuilt(__func__); }
void FreePinned(void*) { NotBuilt(__func__); }
void* CreateStream(int) { NotBuilt(__func__); }
void DestroyStream(void*) { NotBuilt(__func__); }
void Synchronize(void*) { NotBuilt(__func__); }
void CopyAsync(void*, const void*, int64_t, void*) { NotBuilt(__func__); }
void CopyRowsAsync(void*, int64_t, const void*, int64_t, int64_t, int64_t, void*) { NotBuilt(__func__); }
void FillBytesAsync(void*, uint8_t, int64_t, void*) { NotBuilt(__func__); }
void* CreateEvent() { NotBuilt(__func__); }
void DestroyEvent(void*) { NotBuilt(__func__); }
void RecordEvent(void*, void*) { NotBuilt(__func__); }
void WaitEvent(void*) { NotBuilt(__func__); }
void StreamWaitEvent(void*, void*) { NotBuilt(__func__); }
float MillisecondsBetween(void*, void*) { NotBuilt(__func__); }
void BeginCapture(void*) { NotBuilt(__func__); }
void* EndCapture(void*) { NotBuilt(__func__); }
void LaunchGraph(void*, void*) { NotBuilt(__func__); }
void DestroyGraph(void*) { NotBuilt(__func__); }
void InjectFault(void*) { NotBuilt(__func__); }

}  // namespace fd::cuda
