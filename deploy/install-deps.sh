#!/usr/bin/env bash
# install-deps.sh SECTION...: installs the Debian packages of these sections of packages.txt that
# are not there yet. Does nothing, and needs no rights, when all are.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
list=$here/packages.txt

packages_of() {
  sed -n "/^\[$1\]\$/,/^\[/p" "$list" | sed -e '/^\[/d' -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d'
}

# As root, or through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "install-deps: root or sudo is needed to run: $*" >&2
    exit 1
  fi
}

[ $# -gt 0 ] || { echo "usage: install-deps.sh SECTION... (sections of $list)" >&2; exit 2; }

wanted=()
for section in "$@"; do
  found=$(packages_of "$section")
  [ -n "$found" ] || { echo "install-deps: no section [$section] in $list" >&2; exit 2; }
  mapfile -t -O "${#wanted[@]}" wanted <<<"$found"
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "install-deps: this is not a Debian system (no apt-get). Install what these Debian 12" >&2
  echo "packages hold, then configure with cmake by hand: ${wanted[*]}" >&2
  exit 1
fi

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  case $state in
    *not-installed* | *config-files* | '') missing+=("$package") ;;
    *installed*) ;;
    *) missing+=("$package") ;;
  esac
done

if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
echo "==> Installing ${#missing[@]} Debian packages: ${missing[*]}"
as_root apt-get -qq update
as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
  "${missing[@]}" </dev/null
