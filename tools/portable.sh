#!/usr/bin/env bash
# Builds build/cuda-portable/fastdeploy and fastdeploy-media: glibc and cuBLASLt are all that the machine it is carried to must have. Says what it needs.
#   tools/portable.sh [ARCHITECTURES]     90a-real unless named; "80-real;90a-real" runs on Ampere too
set -euo pipefail
cd "$(dirname "$0")/.."
sources=$PWD/build/sources
# These are packaged as shared libraries only; the packages' own sources are fetched by apt, which checks their signature. The system's
# lists stay as they are.
wanted=()
for package in prometheus-cpp harfbuzz ffmpeg; do
  [ -d "$sources/$package" ] || wanted+=("$package")
done
if [ ${#wanted[@]} -gt 0 ]; then
  apt=$sources/apt
  mkdir -p "$apt/lists/partial" "$apt/parts"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
    [ ! -f "$file" ] || sed -E 's/^(Types:|deb) .*deb-src.*/&/; t; s/^Types: deb$/Types: deb-src/; s/^deb /deb-src /' "$file" >"$apt/parts/${file##*/}"
  done
  [ ! -f "$apt/parts/sources.list" ] || mv "$apt/parts/sources.list" "$apt/parts/main.list"
  options=(-qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists" -o APT::Sandbox::User=)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" source --download-only "${wanted[@]}")
  for package in "${wanted[@]}"; do
    mkdir -p "$sources/$package.part"
    tar -xf "$apt/$package"_*.orig.tar.?z -C "$sources/$package.part" --strip-components=1
    mv "$sources/$package.part" "$sources/$package"
  done
  rm -rf "$apt"
fi
# FFmpeg with what fastdeploy-media reads and nothing else, so that its archives need libm alone (and libdav1d's archive, where there is one).
prefix=$sources/ffmpeg-installed
if [ ! -f "$prefix/lib/libavcodec.a" ]; then
  assembler=$(command -v nasm >/dev/null && echo --enable-x86asm || echo --disable-x86asm)
  [ "$assembler" = --enable-x86asm ] || echo 'portable: no nasm, so videos are decoded slowly; apt-get install nasm' >&2
  av1=()
  if pkg-config --exists dav1d && [ -f "$(pkg-config --variable=libdir dav1d)/libdav1d.a" ]; then av1=(--enable-libdav1d --enable-decoder=libdav1d); fi
  (cd "$sources/ffmpeg" && ./configure --quiet --prefix="$prefix" --disable-everything --disable-autodetect --disable-programs --disable-doc \
     --disable-network --disable-avdevice --disable-avfilter --disable-swresample --disable-postproc --disable-debug --enable-pic --enable-static \
     --disable-shared --extra-cflags=-w "$assembler" --enable-demuxer=mov,matroska,avi,gif --enable-decoder=h264,hevc,vp8,vp9,mpeg4,mjpeg,gif \
     --enable-parser=h264,hevc,vp8,vp9,av1,mpeg4video,mjpeg,gif --enable-bsf=h264_mp4toannexb,hevc_mp4toannexb,vp9_superframe_split,av1_frame_split \
     "${av1[@]}" && make -s -j"$(nproc)" install >/dev/null)
  # Else CMake, which takes archives alone, would take libm's, and that one does not go with the shared libc.
  sed -i 's/ -lm\b//g; s/ -latomic\b//g; s/ -pthread\b//g' "$prefix"/lib/pkgconfig/*.pc
fi
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
cmake --preset cuda-portable "-DFASTDEPLOY_CUDA_ARCHITECTURES=${1:-90a-real}" >/dev/null
tools/build.sh cuda-portable fastdeploy

for binary in build/cuda-portable/fastdeploy build/cuda-portable/fastdeploy-media; do
  foreign=$(readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -Ev '^(libc|libm|libcublasLt|ld-linux-x86-64)\.so' || true)
  [ -z "$foreign" ] || { echo "portable: $binary also needs $foreign" >&2; exit 1; }
  glibc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
  echo "$binary: $(du -h "$binary" | cut -f1), needs ${glibc/_/ } or newer$(readelf -d "$binary" | grep -o 'libcublasLt.so.[0-9]*' | sed 's/^/ and /')"
done
