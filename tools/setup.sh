# Sourced by the other tools: what they need from Debian and PyPI, fetched only when it is missing.
# shellcheck shell=bash

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# need_packages PACKAGE...: installs those Debian packages that are not there yet.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "these Debian packages are needed, and only root can install them: apt-get install ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  local patient=(-qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
  apt-get "${patient[@]}" update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get "${patient[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# find_python: prints a Python that is new enough.
find_python() {
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      command -v "$python"
      return
    fi
  done
  say "Python 3.11 or newer is needed"
  exit 1
}

# make_venv DIR EXTRA: a virtual environment with rawkm (editable) and its EXTRA ("" for none), in the versions of
# tools/constraints.txt; made anew only when that or pyproject.toml has changed.
make_venv() {
  local dir=$1 extra=$2 python stamp
  python=$(find_python)
  stamp="$("$python" -V) $(cat pyproject.toml tools/constraints.txt | sha256sum) $extra"
  [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && return
  "$python" -c 'import ensurepip' 2>/dev/null || need_packages python3-venv
  say "setting up $dir"
  rm -rf "$dir"
  "$python" -m venv "$dir"
  "$dir/bin/pip" install -q --disable-pip-version-check -c tools/constraints.txt -e ".${extra:+[$extra]}"
  printf '%s' "$stamp" >"$dir/stamp"
}
