// Devices, their memory, streams and graphs, without a CUDA header. Thread-safe. A failing CUDA call other
// than those that say so throws DeviceError: the device is lost to this process. Giving back (Free...,
// Destroy...) never throws, so that a process with a lost device can still wind up.
#pragma once

#include <cstdint>

namespace fd::cuda {

// True when this build has CUDA kernels; says nothing about the machine.
bool IsBuilt();
// Devices that this process may use; 0 without a driver, a device or CUDA kernels.
int DeviceCount();

struct DeviceInfo {
  char name[256] = {};
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t total_bytes = 0, free_bytes = 0;
  int64_t l2_bytes = 0;
  int64_t shared_bytes_per_block = 0;  // the most a block can ask for
  int driver_version = 0;              // CUDA version the driver knows: 13000 is 13.0
  int runtime_version = 0;
};
// index in [0, DeviceCount()).
DeviceInfo GetDeviceInfo(int index);
// The calling thread's kernels and streams go to this device from now on.
void SetDevice(int index);

// Null when there is not enough memory. 256-byte aligned; uninitialised.
void* TryAllocate(int device, int64_t bytes);
// The same, zeroed and visible to every stream; checks that there was memory.
void* AllocateZeroed(int device, int64_t bytes);
// Visible to every stream when it returns.
void Zero(int device, void* memory, int64_t bytes);
// Waits for work in flight that may use it.
void Free(int device, void* memory);

// Page-locked host memory, zeroed: copies from and to it run beside kernels, and kernels of every device may
// read and write it at the same address.
void* AllocatePinned(int64_t bytes);
void FreePinned(void* memory);

void* CreateStream(int device);  // a cudaStream_t that does not wait for the default stream
void DestroyStream(void* stream);
void Synchronize(void* stream);

// Host or device memory on either side, ordered on the stream. From pageable host memory it returns once the
// source has been read, into pageable host memory once the copy is complete; pinned memory must outlive it.
void CopyAsync(void* to, const void* from, int64_t bytes, void* stream);
// `rows` rows of row_bytes each; pitches in bytes from row to row.
void CopyRowsAsync(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
                   int64_t rows, void* stream);
void FillBytesAsync(void* memory, uint8_t value, int64_t bytes, void* stream);

// An event recorded on a stream, for timing and for waiting without stopping the stream.
void* CreateEvent();
void DestroyEvent(void* event);
void RecordEvent(void* event, void* stream);
void WaitEvent(void* event);                        // the calling thread waits
void StreamWaitEvent(void* stream, void* event);    // later work on the stream waits
float MillisecondsBetween(void* begin, void* end);  // both recorded and reached

// What is given to the stream between Begin and End is recorded, not run; End returns it ready to be
// replayed. Only this thread's calls are watched: other threads may allocate meanwhile. Replays read the same
// addresses.
void BeginCapture(void* stream);
void* EndCapture(void* stream);
void LaunchGraph(void* graph, void* stream);
void DestroyGraph(void* graph);

// Gives the stream a kernel that ends in a trap: from then on the device is lost. For fault tests.
void InjectFault(void* stream);

}  // namespace fd::cuda
