# Shared by the scripts here and by tests/run; sourced, never run.
# shellcheck shell=bash

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# What is fetched or takes long to build, kept between runs and outside the checkout.
# shellcheck disable=SC2034 # for those who source this
cache=${XDG_CACHE_HOME:-$HOME/.cache}/highwater

# A free port below the kernel's ephemeral range (32768), so that no outgoing connection takes it while its server is down.
free_port() {
  # Claimed for three hours: a server may not listen yet, or be stopped for a while.
  local port claims="${TMPDIR:-/tmp}/highwater-ports.$EUID"
  mkdir -p "$claims"
  find "$claims" -mindepth 1 -mmin +180 -delete 2>/dev/null || true
  while true; do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
    mkdir "$claims/$port" 2>/dev/null || continue
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# Debian packages that are wanted and not there yet: `need PACKAGE COMMAND...` asks by running the command.
missing=()
need() {
  local package=$1
  shift
  "$@" &>/dev/null || missing+=("$package")
}

# Installs what `need` found missing, in one go; where that is not allowed or fails, says so and goes on without.
install_missing() {
  ((${#missing[@]})) || return 0
  local -a as_root=()
  if ((EUID)); then as_root=(sudo -n); fi
  if ! command -v apt-get >/dev/null || ! "${as_root[@]}" true 2>/dev/null; then
    say "missing, and not allowed to install: ${missing[*]}"
    return 0
  fi
  say "installing: ${missing[*]}"
  as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
  "${as_root[@]}" update >&2 || say "apt-get update failed; trying with the lists there are"
  "${as_root[@]}" install --no-install-recommends "${missing[@]}" >&2 || say "could not install: ${missing[*]}"
}

passed=0 failed=0 skipped=0

# verdict NAME STATUS: counts a named check.
verdict() {
  if (($2 == 0)); then
    echo "check $1 ... ok"
    passed=$((passed + 1))
  else
    echo "check $1 ... FAILED"
    failed=$((failed + 1))
  fi
}

# check NAME COMMAND...: one named check, whose output is shown when it fails; check_aloud shows it as it comes.
check() {
  local output status=0
  output=$("${@:2}" 2>&1) || status=$?
  ((status == 0)) || printf '%s\n' "$output"
  verdict "$1" "$status"
}
check_aloud() {
  local status=0
  "${@:2}" || status=$?
  verdict "$1" "$status"
}

# skip NAME REASON: a check that could not be made.
skip() {
  echo "SKIPPED $1: $2"
  skipped=$((skipped + 1))
}

# The last line, and the exit code: with CI=true nothing may be skipped.
finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0)) || exit 1
  [[ ${CI:-} != true ]] || ((skipped == 0)) || exit 1
  exit 0
}
