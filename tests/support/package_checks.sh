# Checks of what packages are made of; sourced after packages.sh by tests/run and tests/release.
# shellcheck shell=bash disable=SC2154,SC2317 # variables of those who source it; functions are called through check

# What these checks run.
need_for_packages() {
  need lintian lintian --version
  need dpkg-dev dpkg-deb --version
  need mandoc sh -c 'command -v mandoc'
  need man-db man --version
  need bsdextrautils col --version
  need busybox busybox --help
  need shellcheck shellcheck --version
  need zsh zsh --version
  need fish fish --version
}

# package_checks PROGRAMS MANUAL: what is quick, with the directory of the programs and what examples/manual.rs wrote.
package_checks() {
  local bin=$1 manual=$2
  check "each command has a man page" pages_are_complete "$bin" "$manual"
  check "man pages: mandoc and man find nothing to say" pages_are_clean "$manual"
  check "completions: bash completes commands and flags" bash_completes "$manual"
  check "scripts of packages" scripts_are_clean
  check "install and uninstall, as on OpenWrt" openwrt "$bin" "$manual"
  check "licences of what is shipped: files of the C code" c_licences
}

# commands PROGRAM ARGS...: the commands below this one, by its help, as the names of their pages.
commands() {
  local command words=("$@")
  words[0]=${1##*/}
  (IFS=- && echo "${words[*]}")
  while read -r command; do
    commands "$@" "$command"
  done < <("$@" --help | awk '/^[A-Z].*:$/ { is_it = $0 == "Commands:"; next } is_it && /^  [a-z]/ && $1 != "help" { print $1 }')
}

pages_are_complete() {
  local program
  for program in "${shipped[@]}"; do
    commands "$1/$program"
  done | sort >"$tmp/commands"
  (($(wc -l <"$tmp/commands") > 20)) || return
  diff "$tmp/commands" <(cd "$2/man1" && printf '%s\n' *.1 | sed 's/\.1$//' | sort)
}

pages_are_clean() {
  local page said
  for page in "$1"/man1/*.1; do
    said=$(mandoc -T lint -W warning "$page" 2>&1
      LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null) || true
    [[ -z $said ]] || { printf '%s\n' "$said"; return 1; }
    # In a terminal of 80 columns no line is longer.
    ! LC_ALL=C.UTF-8 MANWIDTH=80 man -l "$page" 2>/dev/null | col -bx | grep -nE '^.{81}' || return
    grep -q '^\.SH "\?EXIT STATUS' "$page" || return
  done
}

bash_completes() {
  local program
  for program in "${shipped[@]}"; do
    bash -c '
      source "$1/bash/$2"
      function=$(complete -p "$2" | sed "s/.* -F \([^ ]*\).*/\1/")
      completes() {
        local expected=$1 COMPREPLY=()
        shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        COMP_LINE=$* COMP_POINT=${#COMP_LINE}
        "$function" "$1" "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
        [[ ${COMPREPLY[*]} == "$expected" ]] || { echo "$*: ${COMPREPLY[*]}"; exit 1; }
      }
      completes check "$2" che
      # In clap_complete 4.6 a hyphen in the name of the program hid the flags of its commands.
      completes --config "$2" run --conf
    ' - "$1" "$program" || return
  done
  local shell
  for shell in zsh fish; do
    for program in "$1/$shell"/*; do "$shell" -n "$program" || return; done
  done
}

scripts_are_clean() {
  local script
  for script in packaging/debian/*.post* packaging/rpm/* packaging/static/{install,uninstall,highwater-agent.procd}; do
    dash -n "$script" && busybox ash -n "$script" || return
    shellcheck --shell dash --exclude SC2148 "$script" || return
  done
}

# A root directory with what the scripts need of OpenWrt, where the archive's programs are installed, upgraded and removed, with
# busybox as the shell; then procd's part, with functions in the place of procd's that show what they are told.
openwrt() {
  local root=$tmp/openwrt archive=$tmp/archive
  rm -rf "$root" "$archive"
  mkdir -p "$root"/{sbin,etc/init.d,lib/upgrade/keep.d} "$archive"
  touch "$root/sbin/procd"
  chmod +x "$root/sbin/procd"
  echo 'root:x:0:0:root:/root:/bin/ash' >"$root/etc/passwd"
  echo 'other:x:200:' >"$root/etc/group"
  cp packaging/static/* systemd/agent.toml systemd/highwater-agent.service "$archive"
  cp "$1/highwater-agent" "$archive"
  cp -r "$2"/{man1,bash} "$archive"

  (umask 077 && ROOT=$root busybox ash "$archive/install") && cmp "$archive/highwater-agent" "$root/usr/bin/highwater-agent" || return
  [[ $(stat -c %a "$root/etc/highwater" "$root/etc/highwater/agent.toml") == $'755\n644' ]] || return
  grep -qx 'highwater-agent:x:201:201:Highwater agent:/srv/highwater:/bin/false' "$root/etc/passwd" || return
  grep -qx 'state_dir = "/srv/highwater"' "$root/etc/highwater/agent.toml" || return
  ROOT=$root busybox ash "$archive/install" && [[ ! -e $root/etc/highwater/agent.toml.new-defaults ]] || return
  survives_sysupgrade "$root" || return
  echo '# edited' >>"$root/etc/highwater/agent.toml"
  ROOT=$root busybox ash "$archive/install" && [[ -e $root/etc/highwater/agent.toml.new-defaults ]] || return
  grep -qx '# edited' "$root/etc/highwater/agent.toml" && (($(grep -c ^highwater-agent "$root/etc/passwd") == 1)) || return
  procd "$root" || return
  # The consumer has no service there, and its archive leaves nothing behind.
  mkdir "$archive/consumer" && cp packaging/static/install "$archive/consumer" && cp "$1/highwater-consumer" "$archive/consumer" || return
  ! ROOT=$root busybox ash "$archive/consumer/install" || return
  ! grep highwater-consumer "$root/etc/passwd" "$root/etc/group" || return
  [[ ! -e $root/usr/bin/highwater-consumer ]] || return
  ROOT=$root busybox ash "$archive/uninstall" && [[ -e $root/etc/highwater/agent.toml && ! -e $root/usr/bin/highwater-agent ]] || return
  ROOT=$root busybox ash "$archive/uninstall" --purge && [[ ! -e $root/etc/highwater ]]
}

# survives_sysupgrade ROOT: what a firmware keeps is all there after two of them; each takes the paths that its keep.d names.
survives_sysupgrade() {
  local kept=(etc/highwater/agent.toml etc/init.d/highwater-agent etc/rc.d/S95highwater-agent etc/rc.d/K10highwater-agent
    usr/bin/highwater-agent srv/highwater/journal.db lib/upgrade/keep.d/highwater-agent) old=$tmp/firmware.0 new path
  rm -rf "$tmp"/firmware.* && cp -a "$1" "$old" && mkdir -p "$old/etc/rc.d" "$old/srv/highwater" && touch "$old/srv/highwater/journal.db" || return
  for path in "$old"/etc/rc.d/{S95,K10}highwater-agent; do ln -s ../init.d/highwater-agent "$path" || return; done
  for new in "$tmp"/firmware.{1,2}; do
    mkdir "$new" || return
    # As /sbin/sysupgrade makes its list.
    (cd "$old" && mapfile -t list < <(sed -ne '/^[[:space:]]*$/d; /^#/d; s|^/||p' lib/upgrade/keep.d/*) && ((${#list[@]})) &&
      find "${list[@]}" \( -type f -o -type l \) | tar --create --files-from -) | tar --extract --directory "$new" || return
    old=$new
  done
  for path in "${kept[@]}"; do
    [[ -e $new/$path || -L $new/$path ]] || { echo "$path is lost"; return 1; }
  done
}

# procd ROOT: the command that procd would be told, and that a wrong configuration is refused before it is.
procd() {
  local script=$1/etc/init.d/highwater-agent stub=$tmp/procd.sh
  cat >"$stub" <<'SH'
procd_open_instance() { :; }
procd_close_instance() { echo closed; }
procd_set_param() { echo "$*"; }
chown() { :; }
SH
  sed -e "s|=/usr/bin|=$1/usr/bin|" -e "s|=/etc/|=$1/etc/|" -e "s|=/srv|=$1/srv|" -e "s|=/var|=$1/var|" "$script" |
    cat "$stub" - >"$tmp/procd"
  # Of the tests' own variables, the agent would say that they are no keys.
  env -i "PATH=$PATH" busybox ash -c ". '$tmp/procd'; start_service" >"$tmp/told" || return
  grep -qx "command $1/usr/bin/highwater-agent run --config $1/etc/highwater/agent.toml" "$tmp/told" &&
    grep -qx 'user highwater-agent' "$tmp/told" && grep -qx closed "$tmp/told" || return
  echo 'intervall = "1s"' >"$tmp/wrong.toml"
  ! env -i "PATH=$PATH" busybox ash -c ". '$tmp/procd'; CONFIG=$tmp/wrong.toml; start_service" 2>/dev/null | grep command
}

# deb_is_sound PACKAGE.deb: lintian finds no error, and what belongs together has one version.
deb_is_sound() {
  local contents
  lintian --fail-on error "$1" || return
  contents=$(dpkg-deb --contents "$1")
  grep -q ' ./etc/highwater/.*\.toml$' <<<"$contents" && grep -q ' ./usr/share/man/man1/.*-run\.1\.gz$' <<<"$contents" &&
    grep -q ' ./usr/share/doc/highwater-.*/operate\.md$' <<<"$contents" &&
    grep -q 'usr/lib/systemd/system/highwater-.*\.service$' <<<"$contents" || return
  dpkg-deb --ctrl-tarfile "$1" | tar --extract --to-stdout ./conffiles | grep -q '^/etc/highwater/.*\.toml$'
}
