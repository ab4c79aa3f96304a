#include "server/multimodal/timestamp.h"

namespace fd {

std::string TimestampText(double) { return {}; }
struct TimestampFont::Impl {};
TimestampFont::TimestampFont(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TimestampFont::~TimestampFont() = default;
StatusOr<std::unique_ptr<TimestampFont>> TimestampFont::Load(const std::string&) {
  return Unimplemented("videos are still to come");
}
void TimestampFont::Draw(double, RgbImage*) const {}

}  // namespace fd
