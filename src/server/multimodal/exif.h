// The orientation tag of a picture file, by our own bounds-checked reader. Pure; any thread.
#pragma once

#include <string_view>

#include "server/multimodal/image.h"

namespace fd {

// 1 to 8 as in EXIF; 1 (upright) when the file has none, or when what it has is malformed. Looks into APP1 of
// JPEG, eXIf of PNG and EXIF of WebP.
int ExifOrientation(std::string_view file);

// The picture turned and mirrored so that an orientation of 1 describes it.
RgbImage TurnUpright(RgbImage image, int orientation);

}  // namespace fd
