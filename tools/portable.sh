#!/usr/bin/env bash
# Builds build/cuda-portable/fastdeploy: glibc and cuBLASLt are all that the machine it is carried to must have. Says what it needs.
#   tools/portable.sh [ARCHITECTURES]     90a-real unless named; "80-real;90a-real" runs on Ampere too
set -euo pipefail
cd "$(dirname "$0")/.."
sources=$PWD/build/sources
# These are packaged as shared libraries only; the packages' own sources are fetched by apt, which checks their signature. The system's
# lists stay as they are.
wanted=()
for package in prometheus-cpp harfbuzz; do
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
    tar -xf "$apt/$package"_*.orig.tar.* -C "$sources/$package.part" --strip-components=1
    mv "$sources/$package.part" "$sources/$package"
  done
  rm -rf "$apt"
fi
cmake --preset cuda-portable "-DFASTDEPLOY_CUDA_ARCHITECTURES=${1:-90a-real}" >/dev/null
tools/build.sh cuda-portable fastdeploy

binary=build/cuda-portable/fastdeploy
foreign=$(readelf -d "$binary" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -Ev '^(libc|libm|libcublasLt|ld-linux-x86-64)\.so' || true)
[ -z "$foreign" ] || { echo "portable: $binary also needs $foreign" >&2; exit 1; }
glibc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)
echo "$binary: $(du -h "$binary" | cut -f1), needs ${glibc/_/ } or newer and libcublasLt.so.13"
