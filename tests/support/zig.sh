# Builds for other systems with zig as the compiler and linker of C; sourced after common.sh, never run.
# shellcheck shell=bash

zig=$cache/zig

install_zig() {
  command -v rustup >/dev/null || die "rustup is missing: see https://rustup.rs"
  if [[ ! -x $zig/bin/cargo-zigbuild ]]; then
    /usr/bin/python3 -m venv "$zig"
    "$zig/bin/pip" install --quiet 'cargo-zigbuild==0.24.*' 'ziglang==0.17.*'
  fi
}

# system RUST: the name of a target as zig and Debian have it.
system() {
  local name=${1/-unknown/}
  echo "${name/armv7/arm}"
}

# glibc_of RUST: the oldest C library that programs for a target run with: Debian 10's. On ARMv7 it is Debian 12's, the first whose
# time_t may have 64 bits: with 32, librdkafka's waits would be over at once from 2038 on.
glibc_of() {
  case $1 in
    armv7-*) echo 2.34 ;;
    *) echo 2.28 ;;
  esac
}

# gateway_cargo RUST COMMAND ARGS...: cargo for the agent as gateways get it, small and without the toolbox. C code is optimised for
# size, what is not called is left out, and so are tables for unwinding C, which nothing unwinds. OpenSSL is built without
# QUIC and without algorithms that no TLS to Kafka uses; the crate that builds it takes no such options, but names its perl. That
# perl also finds an assembler that is too old for AVX-512: AES-GCM with it has 0.7 MB, for servers' processors alone.
gateway_cargo() {
  mkdir -p "$zig"
  cat >"$zig/perl" <<'SH'
#!/bin/sh
case $1 in
  *Configure) exec env PERL="$0" perl "$@" no-quic no-sm2 no-sm3 no-sm4 no-aria no-ml-dsa no-slh-dsa no-srp no-ts ;;
  *-avx512.pl) exec env CC='echo GNU assembler version 2.20' perl "$@" ;;
  *) exec perl "$@" ;;
esac
SH
  chmod +x "$zig/perl"
  OPENSSL_SRC_PERL=$zig/perl \
    CFLAGS='-Os -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-unwind-tables' profile=gateway \
    zig_cargo "$1" "$2" --no-default-features --features agent "${@:3}"
}

# zig_cargo RUST COMMAND ARGS...: cargo for a target, in the profile $profile or release.
zig_cargo() {
  local rust=$1 suffix='' tools=$zig/$1 tool flags=${CFLAGS:-}
  [[ $rust != *-gnu* ]] || suffix=.$(glibc_of "$rust")
  [[ $rust != armv7-* ]] || flags+=' -D_TIME_BITS=64 -D_FILE_OFFSET_BITS=64'
  # cargo-zigbuild tells cargo about zig, but librdkafka's configure knows only CC, CXX and AR.
  mkdir -p "$tools"
  for tool in cc c++; do
    printf '#!/bin/sh\nexec "%s" -m ziglang %s -target %s "$@"\n' "$zig/bin/python" "$tool" "$(system "$rust")$suffix" >"$tools/$tool"
  done
  printf '#!/bin/sh\nexec "%s" -m ziglang ar "$@"\n' "$zig/bin/python" >"$tools/ar"
  chmod +x "$tools"/*
  # HOST_*: for build scripts. --undefined-version: librdkafka's version script names symbols that this build has not.
  PATH=$zig/bin:$PATH CC=$tools/cc CXX=$tools/c++ AR=$tools/ar HOST_CC=cc HOST_CXX=c++ HOST_AR=ar \
    CFLAGS=$flags LDFLAGS=-Wl,--undefined-version \
    cargo-zigbuild "$2" --profile "${profile:-release}" --target "$rust$suffix" "${@:3}"
}

# needs_no_newer_glibc RUST PROGRAM: by the newest of the versions that its symbols have there.
needs_no_newer_glibc() {
  local newest glibc
  glibc=$(glibc_of "$1")
  shift
  newest=$(readelf --version-info "$1" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
  echo "$(stat -c %s "$1") bytes, needs $newest"
  [[ $(printf '%s\n' "$newest" "GLIBC_$glibc" | sort -V | tail -n 1) == "GLIBC_$glibc" ]]
}

# fits_a_gateway PROGRAM: the agent without the toolbox is at most 10 MB.
fits_a_gateway() { (($(stat -c %s "$1") <= 10000000)); }
