# A fresh Debian in a directory (debootstrap), in which systemd is not PID 1; sourced after common.sh, never run. As root.
# shellcheck shell=bash disable=SC2034,SC2154 # variables for and of those who source it

suite=bookworm
# systemd's programs, not systemd as PID 1: units are enabled, and not started. psql and sqlite3 are what a reader of the documentation
# installs.
debian_packages=adduser,systemd,postgresql-client,sqlite3
environment=(/usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
  DEBIAN_FRONTEND=noninteractive)

archive=$cache/debian-$suite-${debian_packages//,/-}.tar

# Fetches it, the first time.
fetch_debian() {
  local fresh
  [[ ! -s $archive ]] || return 0
  fresh=$(mktemp -d "${TMPDIR:-/tmp}/highwater.XXXXXX")
  debootstrap --variant=minbase --include="$debian_packages" "$suite" "$fresh/root" >"$fresh/log" ||
    { tail -n 20 "$fresh/log" >&2; die "no Debian"; }
  mkdir -p "$cache"
  tar --create --file "$archive.new" --one-file-system --directory "$fresh/root" .
  mv "$archive.new" "$archive"
  rm -rf --one-file-system "$fresh"
}

# unpack_debian DIRECTORY: makes it, with /proc, /sys, and `as_unit` in the place of systemd.
unpack_debian() {
  fetch_debian
  mkdir "$1"
  tar --extract --file "$archive" --directory "$1"
  install -m 755 tests/support/as_unit "$1/usr/local/sbin"
  mount -t proc proc "$1/proc"
  mount --rbind /sys "$1/sys"
}
