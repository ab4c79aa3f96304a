#include "server/multimodal/timestamp.h"

#include <hb-ft.h>
#include <hb.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <list>
#include <map>
#include <mutex>
#include <utility>

#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_GLYPH_H
#include FT_STROKER_H

#include "base/files.h"
#include "base/strings.h"

namespace fd {
namespace {

constexpr int64_t kMaxFontBytes = 64 << 20;
// Videos of one size share their glyphs; a size that has not been used for the longest time goes first.
constexpr size_t kMaxSizes = 4;
constexpr std::string_view kLetters = "time: 0123456789.";

// FreeType's 26.6 fixed point to the nearest pixel.
int ToPixel(int64_t position) { return static_cast<int>((position + 32) >> 6); }

// Coverage of one glyph, 0 to 255; its place is relative to the pen, y downwards.
struct Bitmap {
  int left = 0;
  int top = 0;
  int width = 0;
  int height = 0;
  std::vector<uint8_t> coverage;  // [height, width]
};

struct Glyph {
  Bitmap fill;
  Bitmap outline;  // the fill grown by the stroke; empty without a stroke
  FT_BBox box{};   // of the fill's outline in whole pixels, y upwards
};

struct PlacedGlyph {
  const Glyph* glyph;
  int64_t x;  // 26.6, pen with the shaping's offset
  int64_t y;
};

// One line of text at a size: glyphs live as long as their SizedFont.
struct Line {
  std::vector<PlacedGlyph> glyphs;
  int64_t advance = 0;  // 26.6
};

Bitmap CopyBitmap(const FT_Bitmap& from, int left, int top) {
  Bitmap to;
  if (from.buffer == nullptr || from.pixel_mode != FT_PIXEL_MODE_GRAY || from.pitch <= 0) return to;
  to.left = left;
  to.top = -top;
  to.width = static_cast<int>(from.width);
  to.height = static_cast<int>(from.rows);
  for (int y = 0; y < to.height; ++y) {
    const uint8_t* row = from.buffer + y * from.pitch;
    to.coverage.insert(to.coverage.end(), row, row + to.width);
  }
  return to;
}

// A face of one size with a FreeType library of its own, so that sizes never meet in FreeType. `font` is the
// file and outlives it. Shape may be called from any thread.
class SizedFont {
 public:
  SizedFont(const std::string& font, int size_pixels) : size_pixels_(size_pixels) {
    if (FT_Init_FreeType(&library_) != 0) return;
    if (FT_New_Memory_Face(library_, reinterpret_cast<const FT_Byte*>(font.data()),
                           static_cast<FT_Long>(font.size()), 0, &face_) != 0) {
      face_ = nullptr;
      return;
    }
    if (!FT_IS_SCALABLE(face_) || FT_Set_Pixel_Sizes(face_, 0, static_cast<FT_UInt>(size_pixels)) != 0) {
      return;
    }
    if (stroke_pixels() > 0) {
      if (FT_Stroker_New(library_, &stroker_) != 0) return;
      FT_Stroker_Set(stroker_, stroke_pixels() * 64, FT_STROKER_LINECAP_ROUND, FT_STROKER_LINEJOIN_ROUND, 0);
    }
    shaper_ = hb_ft_font_create_referenced(face_);
    buffer_ = hb_buffer_create();
    ascender_ = ToPixel(face_->size->metrics.ascender);
  }
  ~SizedFont() {
    if (buffer_ != nullptr) hb_buffer_destroy(buffer_);
    if (shaper_ != nullptr) hb_font_destroy(shaper_);
    if (stroker_ != nullptr) FT_Stroker_Done(stroker_);
    if (face_ != nullptr) FT_Done_Face(face_);
    if (library_ != nullptr) FT_Done_FreeType(library_);
  }
  SizedFont(const SizedFont&) = delete;
  SizedFont& operator=(const SizedFont&) = delete;

  bool has_face() const { return face_ != nullptr; }
  bool usable() const { return buffer_ != nullptr && hb_buffer_allocation_successful(buffer_) != 0; }
  int size_pixels() const { return size_pixels_; }
  int stroke_pixels() const { return size_pixels_ / 10; }
  int ascender_pixels() const { return ascender_; }

  bool HasLetters() const {
    return std::all_of(kLetters.begin(), kLetters.end(),
                       [&](char c) { return FT_Get_Char_Index(face_, static_cast<FT_ULong>(c)) != 0; });
  }

  // Places the text's glyphs along a line from (0, 0). False when the font's data are damaged.
  bool Shape(const std::string& text, Line* line) {
    std::lock_guard lock(mutex_);
    hb_buffer_clear_contents(buffer_);
    hb_buffer_add_utf8(buffer_, text.data(), static_cast<int>(text.size()), 0, static_cast<int>(text.size()));
    hb_buffer_set_direction(buffer_, HB_DIRECTION_LTR);
    hb_buffer_set_script(buffer_, HB_SCRIPT_LATIN);
    hb_buffer_set_language(buffer_, HB_LANGUAGE_INVALID);
    hb_shape(shaper_, buffer_, nullptr, 0);
    unsigned int count = 0;
    const hb_glyph_info_t* infos = hb_buffer_get_glyph_infos(buffer_, &count);
    const hb_glyph_position_t* positions = hb_buffer_get_glyph_positions(buffer_, &count);
    int64_t y = 0;
    for (unsigned int i = 0; i < count; ++i) {
      const Glyph* glyph = FindGlyph(infos[i].codepoint);
      if (glyph == nullptr) return false;
      line->glyphs.push_back({glyph, line->advance + positions[i].x_offset, y + positions[i].y_offset});
      line->advance += positions[i].x_advance;
      y += positions[i].y_advance;
    }
    return true;
  }

 private:
  const Glyph* FindGlyph(FT_UInt index) {
    auto [at, is_new] = glyphs_.try_emplace(index);
    if (is_new && !Render(index, &at->second)) {
      glyphs_.erase(at);
      return nullptr;
    }
    return &at->second;
  }

  bool Render(FT_UInt index, Glyph* out) {
    // A font may bring pictures of glyphs; Pillow takes outlines where it strokes.
    const FT_Int32 flags = stroker_ != nullptr ? FT_LOAD_NO_BITMAP : FT_LOAD_DEFAULT;
    if (FT_Load_Glyph(face_, index, flags) != 0) return false;
    FT_Glyph glyph;
    if (FT_Get_Glyph(face_->glyph, &glyph) != 0) return false;
    FT_Glyph_Get_CBox(glyph, FT_GLYPH_BBOX_PIXELS, &out->box);
    bool good = true;
    if (stroker_ != nullptr) {
      good = FT_Glyph_StrokeBorder(&glyph, stroker_, false, true) == 0 &&
             FT_Glyph_To_Bitmap(&glyph, FT_RENDER_MODE_NORMAL, nullptr, true) == 0;
      if (good) {
        auto* bitmap = reinterpret_cast<FT_BitmapGlyph>(glyph);
        out->outline = CopyBitmap(bitmap->bitmap, bitmap->left, bitmap->top);
      }
    }
    FT_Done_Glyph(glyph);
    if (!good || FT_Load_Glyph(face_, index, FT_LOAD_RENDER) != 0) return false;
    const FT_GlyphSlot slot = face_->glyph;
    out->fill = CopyBitmap(slot->bitmap, slot->bitmap_left, slot->bitmap_top);
    return true;
  }

  const int size_pixels_;
  int ascender_ = 0;
  FT_Library library_ = nullptr;
  FT_Face face_ = nullptr;
  FT_Stroker stroker_ = nullptr;
  hb_font_t* shaper_ = nullptr;
  hb_buffer_t* buffer_ = nullptr;
  std::mutex mutex_;  // guards everything below and every call into FreeType and HarfBuzz after construction
  std::map<FT_UInt, Glyph> glyphs_;  // nodes stay where they are
};

// The coverage of a whole line; its place is in the frame.
struct Mask {
  int x = 0;
  int y = 0;
  int width = 0;
  int height = 0;
  std::vector<uint8_t> coverage;  // [height, width]
};

uint8_t Blend(int coverage, int below, int above) {
  const int t = below * (255 - coverage) + above * coverage + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

void AddBitmap(const Bitmap& bitmap, int x, int y, Mask* mask) {
  const int x0 = std::max(0, -x), x1 = std::min(bitmap.width, mask->width - x);
  const int y0 = std::max(0, -y), y1 = std::min(bitmap.height, mask->height - y);
  for (int row = y0; row < y1; ++row) {
    const uint8_t* from = bitmap.coverage.data() + int64_t{row} * bitmap.width;
    uint8_t* to = mask->coverage.data() + int64_t{y + row} * mask->width + x;
    for (int i = x0; i < x1; ++i) {
      if (from[i] == 0) continue;
      const int t = to[i] * (255 - from[i]) + 128;
      to[i] = static_cast<uint8_t>(std::min(255, from[i] + (((t >> 8) + t) >> 8)));
    }
  }
}

// Pillow's mask: as large as the unstroked text (pen line included) plus the stroke on each side; what a
// glyph has beyond it is cut. Places are rounded to pixels glyph by glyph.
Mask DrawLine(const SizedFont& font, const Line& line, int stroke) {
  int x_min = 0, x_max = std::max(0, ToPixel(line.advance)), y_min = 0, y_max = 0;
  int left = 0, top = 0;
  for (const PlacedGlyph& placed : line.glyphs) {
    const int px = ToPixel(placed.x), py = ToPixel(placed.y);
    const FT_BBox& box = placed.glyph->box;
    x_min = std::min(x_min, static_cast<int>(box.xMin) + px);
    x_max = std::max(x_max, static_cast<int>(box.xMax) + px);
    y_min = std::min(y_min, static_cast<int>(box.yMin) + py);
    y_max = std::max(y_max, static_cast<int>(box.yMax) + py);
    left = std::min(left, placed.glyph->fill.left + px);
    top = std::max(top, py - placed.glyph->fill.top);
  }
  Mask mask;
  mask.width = x_max - x_min + 2 * stroke;
  mask.height = y_max - y_min + 2 * stroke;
  mask.x = x_min - stroke;
  mask.y = font.ascender_pixels() - y_max - stroke;
  mask.coverage.assign(static_cast<size_t>(mask.width) * static_cast<size_t>(mask.height), 0);
  const int64_t pen_x = int64_t{stroke - left} * 64, pen_y = int64_t{-top - stroke} * 64;
  for (const PlacedGlyph& placed : line.glyphs) {
    const Bitmap& bitmap = stroke > 0 ? placed.glyph->outline : placed.glyph->fill;
    AddBitmap(bitmap, ToPixel(pen_x + placed.x) + bitmap.left, bitmap.top - ToPixel(pen_y + placed.y), &mask);
  }
  return mask;
}

void Paint(const Mask& mask, int ink, RgbImage* frame) {
  const int64_t x0 = std::max(0, -mask.x), x1 = std::min<int64_t>(mask.width, frame->width - mask.x);
  const int64_t y0 = std::max(0, -mask.y), y1 = std::min<int64_t>(mask.height, frame->height - mask.y);
  for (int64_t y = y0; y < y1; ++y) {
    const uint8_t* coverage = mask.coverage.data() + y * mask.width;
    uint8_t* to = frame->pixels.data() + 3 * ((mask.y + y) * frame->width + mask.x);
    for (int64_t x = x0; x < x1; ++x) {
      if (coverage[x] == 0) continue;
      for (int c = 0; c < 3; ++c) to[3 * x + c] = Blend(coverage[x], to[3 * x + c], ink);
    }
  }
}

}  // namespace

std::string TimestampText(double seconds) {
  if (!(seconds > 0) || !std::isfinite(seconds)) seconds = 0;
  seconds = std::min(seconds, 1e12);
  // As Python's // and %: the remainder is exact, the quotient is taken of what is left.
  const double in_hour = std::fmod(seconds, 3600.0), in_minute = std::fmod(seconds, 60.0);
  const int64_t hours = std::llround((seconds - in_hour) / 3600.0);
  const int64_t minutes = static_cast<int64_t>(in_hour) / 60;
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), in_minute, std::chars_format::fixed, 2).ptr;
  const std::string text(digits, end);
  auto two = [](int64_t n) { return StrCat(n < 10 ? "0" : "", n); };
  return StrCat("time: ", two(hours), ":", two(minutes), ":", text.size() < 5 ? "0" : "", text);
}

struct TimestampFont::Impl {
  std::string font;  // the file; faces read from it
  std::mutex mutex;
  std::list<std::shared_ptr<SizedFont>> sizes;  // the last used first

  std::shared_ptr<SizedFont> OfSize(int size_pixels) {
    std::lock_guard lock(mutex);
    for (auto it = sizes.begin(); it != sizes.end(); ++it) {
      if ((*it)->size_pixels() != size_pixels) continue;
      sizes.splice(sizes.begin(), sizes, it);
      return sizes.front();
    }
    sizes.push_front(std::make_shared<SizedFont>(font, size_pixels));
    if (sizes.size() > kMaxSizes) sizes.pop_back();
    return sizes.front();
  }
};

TimestampFont::TimestampFont(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TimestampFont::~TimestampFont() = default;

StatusOr<std::unique_ptr<TimestampFont>> TimestampFont::Load(const std::string& font_path) {
  auto impl = std::make_unique<Impl>();
  FD_ASSIGN_OR_RETURN(impl->font, ReadFile(font_path));
  auto bad = [&](std::string_view why) {
    return InvalidArgument(StrCat(font_path, ": ", why,
                                  "; expected the font that the checkpoint brings for the times of a video, "
                                  "for example Roboto-Regular.ttf"));
  };
  if (static_cast<int64_t>(impl->font.size()) > kMaxFontBytes) {
    return bad(StrCat("the file has ", impl->font.size(), " bytes; the limit for a font is ", kMaxFontBytes));
  }
  // With a stroke, so that every step of a drawing is tried.
  std::shared_ptr<SizedFont> trial = impl->OfSize(20);
  if (!trial->has_face()) return bad("the file is no font that FreeType reads");
  if (!trial->usable()) return bad("the font has no outlines that can be scaled");
  if (!trial->HasLetters()) return bad(StrCat("the font lacks some of the letters \"", kLetters, "\""));
  Line line;
  if (!trial->Shape(std::string(kLetters), &line)) return bad("the font's letters are damaged");
  return std::unique_ptr<TimestampFont>(new TimestampFont(std::move(impl)));
}

void TimestampFont::Draw(double seconds, RgbImage* frame) const {
  const int size = static_cast<int>(0.1 * static_cast<double>(std::min(frame->width, frame->height)));
  if (size < 1) return;
  const std::shared_ptr<SizedFont> font = impl_->OfSize(size);
  Line line;
  if (!font->usable() || !font->Shape(TimestampText(seconds), &line)) return;
  if (font->stroke_pixels() > 0) Paint(DrawLine(*font, line, font->stroke_pixels()), 255, frame);
  Paint(DrawLine(*font, line, 0), 0, frame);
}

}  // namespace fd
