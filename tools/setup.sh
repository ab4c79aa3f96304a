#!/usr/bin/env bash
# Installs what building and testing need on Debian 12 and Ubuntu 24.04. Does nothing when all of it is there.
#   tools/setup.sh          install what is missing (with sudo when not root)
#   tools/setup.sh --check  only say what is missing; exit 1 if anything is
set -euo pipefail

. /etc/os-release
# "a|b" means either: the first name that the system's lists know is installed.
packages=(
  g++ make cmake ninja-build pkg-config ccache mold
  'libboost1.81-dev|libboost1.83-dev'   # HTTP: the default libboost of Debian 12 (1.74) is too old for coroutines
  libcli11-dev prometheus-cpp-dev
  libpcre2-dev libutf8proc-dev
  libjpeg-dev libpng-dev libwebp-dev libgif-dev zlib1g-dev
  libcurl4-openssl-dev
  libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libseccomp-dev  # fastdeploy-media: videos
  libfreetype-dev libharfbuzz-dev
  libgtest-dev
  python3 python3-venv curl ca-certificates
  clang-format-19  # one version: others break lines elsewhere
)
case "${ID:-} ${VERSION_ID:-}" in
  "debian 12"*|"ubuntu 24.04"*) ;;
  *) echo "setup: ${PRETTY_NAME:-this system} is untested; Debian 12 and Ubuntu 24.04 are known to work" >&2 ;;
esac
command -v apt-get >/dev/null || { echo "setup: no apt-get here; install by hand: ${packages[*]}" >&2; exit 1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=()
for entry in "${packages[@]}"; do
  found=
  for name in ${entry//|/ }; do
    if installed "$name"; then found=1; fi
  done
  [ -n "$found" ] || missing+=("$entry")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi
if [ "${1:-}" = --check ]; then
  echo "missing: ${missing[*]}"
  exit 1
fi

sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "setup: run as root once, or install sudo; missing: ${missing[*]}" >&2; exit 1; }
  sudo=sudo
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
names=()
for entry in "${missing[@]}"; do
  chosen=
  for name in ${entry//|/ }; do
    if [ -z "$chosen" ] && apt-cache show "$name" >/dev/null 2>&1; then chosen=$name; fi
  done
  names+=("${chosen:-${entry%%|*}}")
done
$sudo apt-get install -y -qq --no-install-recommends "${names[@]}"
