# Makes packages of programs that are built; sourced after common.sh, never run.
# shellcheck shell=bash

tools=$cache/tools
shipped=(highwater-agent highwater-consumer)
version=$(sed -n '0,/^version = /s/^version = "\(.*\)"$/\1/p' Cargo.toml)

# install_tool NAME VERSION ARGS...: a cargo subcommand, compiled once and kept in the cache.
install_tool() {
  "$tools/bin/$1" --version 2>/dev/null | grep -qF "$2" && return
  # What counts is how soon it is there.
  CARGO_TARGET_DIR=$cache/tools-target CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
    cargo install --quiet --locked --root "$tools" "$1@$2" "${@:3}"
}

# stage RELEASE LICENCES MANUAL...: puts beside the programs in RELEASE what their packages need. LICENCES is a file with the licences
# of what is inside, MANUAL the program of examples/manual.rs; a second one, built for gateways, has the agent's pages instead.
stage() {
  local staged=$1/packaging program manual
  rm -rf "$staged"
  mkdir -p "$staged" && gzip -9n <"$2" >"$staged/licences.gz" || return
  for manual in "${@:3}"; do
    rm -f "$staged"/man1/highwater-agent*
    "$manual" "$staged" "$(date --utc --date "@$(changed_at)" +%F)" || return
  done
  for program in "${shipped[@]}"; do
    debian_changelog "$program" | gzip -9n >"$staged/$program.changelog.gz" || return
  done
  gzip -9nk "$staged"/man1/*.1
}

# notes: the section of CHANGELOG.md that is of this version or, before its release, what is unreleased.
notes() {
  local heading="## [$version]"
  grep -qF "$heading" CHANGELOG.md || heading='## [Unreleased]'
  awk -v heading="$heading" '/^## / { is_it = index($0, heading) == 1; next } is_it' CHANGELOG.md | sed '/./,$!d'
}

debian_changelog() {
  local item
  printf '%s (%s-1) unstable; urgency=medium\n\n' "$1" "$version"
  # Each paragraph and each item of a list is an item here.
  notes | awk '
    /^#/ { next }
    /^(- |$)/ { if (item) print item; item = substr($0, 3); next }
    { sub(/^ +/, ""); item = item ? item " " $0 : $0 }
    END { if (item) print item }' |
    while IFS= read -r item; do fmt --width 75 <<<"$item" | sed -e '1s/^/  * /' -e '2,$s/^/    /'; done
  printf '\n -- Highwater maintainers <highwater@localhost>  %s\n' "$(date -R -d "@$(changed_at)")"
}

# When this tree was last changed: the same tree makes the same packages.
changed_at() { git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md; }

# licences: those of the crates inside the programs, and of the C libraries that these compile.
licences() {
  "$tools/bin/cargo-about" generate --locked --fail --config packaging/licences/about.toml packaging/licences/about.hbs
  local crate file
  while read -r crate file; do
    printf '\n%s\n%s\n%s\n' "$(printf '=%.0s' {1..80})" "C code in $crate: ${file##*/}" "$(printf -- '-%.0s' {1..80})"
    cat "$file"
  done < <(c_licences)
}

# c_licences: each crate that compiles C, with its version, and a file of its licence.
c_licences() {
  cargo metadata --locked --format-version 1 | python3 -c '
import json, pathlib, sys
FILES = {
    "openssl-src": ["openssl/LICENSE.txt"],
    "rdkafka-sys": ["librdkafka/LICENSES.txt"],
    "libz-sys": ["src/zlib/LICENSE"],
    "zstd-sys": ["zstd/LICENSE"],
}
for package in json.load(sys.stdin)["packages"]:
    root = pathlib.Path(package["manifest_path"]).parent
    for name in FILES.pop(package["name"], []):
        assert (root / name).is_file(), root / name
        print(package["name"] + "-" + package["version"], root / name)
assert not FILES, FILES
'
}

# Debian's, RPM's and Linux' names of a machine.
debian_machine() { case $1 in x86_64-*) echo amd64 ;; aarch64-*) echo arm64 ;; armv7-*) echo armhf ;; esac; }
rpm_machine() { case $1 in armv7-*) echo armv7hl ;; *) echo "${1%%-*}" ;; esac; }

# deb PROGRAM DIRECTORY [RUST]: a package for Debian, of the release build or that of a target.
deb() {
  local program=$1 directory=$2
  "$tools/bin/cargo-deb" deb --quiet --locked --no-build --no-strip --variant "${program#highwater-}" \
    ${3:+--target "$3"} --output "$directory/" || return
  [[ ${3:-} != armv7-* ]] || needs_its_glibc "$directory/${program}_$version-1_armhf.deb" "$(glibc_of "$3")"
}

# needs_its_glibc DEB GLIBC: writes the C library that this package needs into it, where Cargo.toml names an older one for all.
needs_its_glibc() {
  local unpacked=$tmp/unpacked-deb
  rm -rf "$unpacked"
  dpkg-deb --raw-extract "$1" "$unpacked" && sed -i "s/libc6 (>= [0-9.]*)/libc6 (>= $2)/" "$unpacked/DEBIAN/control" &&
    dpkg-deb --root-owner-group -Zxz --build "$unpacked" "$1" >/dev/null
}

# rpm PROGRAM DIRECTORY RUST. What is set here replaces the whole table of Cargo.toml.
rpm_package() {
  local program=$1 directory=$2
  "$tools/bin/cargo-generate-rpm" --variant "${program#highwater-}" --target "$3" \
    --set-metadata "requires = { glibc = \">= $(glibc_of "$3")\", \"/usr/sbin/useradd\" = \"*\" }" \
    --target-dir "$target" --arch "$(rpm_machine "$3")" --output "$directory/"
}

# tarball PROGRAM DIRECTORY RUST: one static program, and what installs it without a package manager.
tarball() {
  local program=$1 directory=$2 short=${1#highwater-} release=$target/$3/release
  local name=$program-$version-${3%%-*}-linux-musl
  local root=$directory/$name
  rm -rf "$root"
  mkdir -p "$root/docs" &&
    command install -m 755 "$release/$program" packaging/static/install packaging/static/uninstall "$root" &&
    command install -m 644 "systemd/$short.toml" "systemd/$program.service" LICENSE packaging/static/README.md "$root" &&
    command install -m 644 docs/*.md docs/data-frames.svg "$root/docs" &&
    cp -r "$release/packaging/"{man1,bash} "$root" &&
    find "$root/man1" "$root/bash" -type f \( ! -name "$program*" -o -name '*.1' \) -delete &&
    gzip -d <"$release/packaging/licences.gz" >"$root/LICENCES" || return
  if [[ $program == highwater-agent ]]; then command install -m 755 packaging/static/highwater-agent.procd "$root"; fi
  tar --create --gzip --file "$directory/$name.tar.gz" --directory "$directory" --owner 0 --group 0 --numeric-owner \
    --sort name --mtime "@$(changed_at)" "$name" || return
  rm -rf "$root"
}
