#include "compute/ops/stream.h"

#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/linear.h"
#include "compute/ops/row_ranges.h"
#include "compute/tensor/device_error.h"

namespace fd::ops {
namespace {

std::shared_ptr<void> NewEvent() { return {cuda::CreateEvent(), cuda::DestroyEvent}; }

}  // namespace

void UseDevice(const Context& ctx) {
  if (OnCuda(ctx)) cuda::SetDevice(ctx.device.index);
}

void Synchronize(const Context& ctx) {
  if (OnCuda(ctx)) cuda::Synchronize(ctx.stream);
}

void InjectFault(const Context& ctx) {
  if (!OnCuda(ctx)) throw DeviceError("an injected fault");
  cuda::InjectFault(ctx.stream);
}

Event::Event(const Context& ctx) {
  if (OnCuda(ctx)) event_ = NewEvent();
}

void Event::Record(const Context& ctx) {
  if (event_ != nullptr) cuda::RecordEvent(event_.get(), ctx.stream);
}

void Event::Wait() const {
  if (event_ != nullptr) cuda::WaitEvent(event_.get());
}

double Event::MillisecondsBetween(const Event& begin, const Event& end) {
  if (begin.event_ == nullptr || end.event_ == nullptr) return 0;
  return cuda::MillisecondsBetween(begin.event_.get(), end.event_.get());
}

Graph::Graph(const Context& ctx, const std::function<void()>& fn) {
  FD_CHECK(HasGraphs(ctx), "nothing can be recorded on this device");
  cuda::BeginCapture(ctx.stream);
  fn();
  graph_ = std::shared_ptr<void>(cuda::EndCapture(ctx.stream), cuda::DestroyGraph);
}

void Graph::Launch(const Context& ctx) const { cuda::LaunchGraph(graph_.get(), ctx.stream); }

bool HasGraphs(const Context& ctx) { return OnCuda(ctx); }

SideLine::SideLine(const Context& ctx) {
  if (!OnCuda(ctx)) return;
  stream_ = std::shared_ptr<void>(cuda::CreateStream(ctx.device.index), cuda::DestroyStream);
  forked_ = NewEvent();
  done_ = NewEvent();
  cuda::PrepareLinear(stream_.get());
}

void SideLine::Fork(const Context& ctx) {
  if (stream_ == nullptr) return;
  cuda::RecordEvent(forked_.get(), ctx.stream);
  cuda::StreamWaitEvent(stream_.get(), forked_.get());
}

void SideLine::Join(const Context& ctx) {
  if (stream_ == nullptr) return;
  cuda::RecordEvent(done_.get(), stream_.get());
  cuda::StreamWaitEvent(ctx.stream, done_.get());
}

Context SideLine::context(const Context& ctx) const {
  Context side = ctx;
  if (stream_ != nullptr) side.stream = stream_.get();
  return side;
}

}  // namespace fd::ops
