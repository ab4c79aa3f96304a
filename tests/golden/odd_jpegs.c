/* Writes JPEG files that Pillow cannot write, for make_pictures.py: cc odd_jpegs.c -ljpeg -lm -o odd_jpegs; odd_jpegs FOLDER */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <jpeglib.h>

enum { kWidth = 37, kHeight = 29 };

static void Write(const char* folder, const char* name, int components, J_COLOR_SPACE in, J_COLOR_SPACE stored, int arithmetic,
                  int progressive, int restart, int h, int v, int adobe) {
  char path[512];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  FILE* file = fopen(path, "wb");
  struct jpeg_compress_struct c;
  struct jpeg_error_mgr errors;
  c.err = jpeg_std_error(&errors);
  jpeg_create_compress(&c);
  jpeg_stdio_dest(&c, file);
  c.image_width = kWidth;
  c.image_height = kHeight;
  c.input_components = components;
  c.in_color_space = in;
  jpeg_set_defaults(&c);
  jpeg_set_colorspace(&c, stored);
  jpeg_set_quality(&c, 88, TRUE);
  c.arith_code = arithmetic;
  c.restart_interval = restart;
  c.write_Adobe_marker = adobe;
  if (components == 3) c.comp_info[0].h_samp_factor = h, c.comp_info[0].v_samp_factor = v;
  if (progressive) jpeg_simple_progression(&c);
  jpeg_start_compress(&c, TRUE);
  unsigned char row[4 * kWidth];
  JSAMPROW rows[1] = {row};
  for (int y = 0; y < kHeight; ++y) {
    for (int x = 0; x < kWidth; ++x) {
      for (int k = 0; k < components; ++k) row[components * x + k] = (unsigned char)(127 + 120 * sin(0.21 * x * (k + 1) + 0.17 * y));
    }
    jpeg_write_scanlines(&c, rows, 1);
  }
  jpeg_finish_compress(&c);
  jpeg_destroy_compress(&c);
  fclose(file);
}

int main(int argc, char** argv) {
  const char* f = argv[1];
  Write(f, "arithmetic.jpg", 3, JCS_RGB, JCS_YCbCr, 1, 0, 0, 2, 2, 0);
  Write(f, "arithmetic_progressive.jpg", 3, JCS_RGB, JCS_YCbCr, 1, 1, 0, 2, 2, 0);
  Write(f, "restart.jpg", 3, JCS_RGB, JCS_YCbCr, 0, 0, 2, 2, 1, 0);
  Write(f, "sampling_440.jpg", 3, JCS_RGB, JCS_YCbCr, 0, 0, 0, 1, 2, 0);
  Write(f, "sampling_411.jpg", 3, JCS_RGB, JCS_YCbCr, 0, 0, 0, 4, 1, 0);
  Write(f, "stored_rgb.jpg", 3, JCS_RGB, JCS_RGB, 0, 0, 0, 1, 1, 1);
  Write(f, "adobe_ycbcr.jpg", 3, JCS_RGB, JCS_YCbCr, 0, 1, 0, 2, 2, 1);
  Write(f, "ycck.jpg", 4, JCS_CMYK, JCS_YCCK, 0, 0, 0, 1, 1, 1);
  Write(f, "ycck_progressive.jpg", 4, JCS_CMYK, JCS_YCCK, 0, 1, 0, 1, 1, 1);
  Write(f, "cmyk_without_adobe.jpg", 4, JCS_CMYK, JCS_CMYK, 0, 0, 0, 1, 1, 0);
  Write(f, "grey_progressive.jpg", 1, JCS_GRAYSCALE, JCS_GRAYSCALE, 0, 1, 0, 1, 1, 0);
  Write(f, "two_components.jpg", 2, JCS_UNKNOWN, JCS_UNKNOWN, 0, 0, 0, 1, 1, 0);
  return argc < 2;
}
