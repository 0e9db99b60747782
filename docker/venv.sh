#!/usr/bin/env bash
# Makes a virtual environment and keeps it up to date: venv.sh service|tools|faults|clients|peers
#
#   service   the locked dependencies and the service
#   tools     also what tests and lint need
#   faults    also the fuzzer; without it the fault suite skips fuzzing
#   clients   also Node.js, with the generators of clients and the linters in tests/clients
#   peers     the benchmark's peers, in an environment of their own that ends in -bench, so that
#             their packages do not affect measurements
#
# PYTHON names the interpreter, VENV a folder other than .venv.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh
# shellcheck source=docker/apt.sh
. docker/apt.sh

venv=${VENV:-.venv}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    # Executed, not only looked up: version managers have shims for versions that are not installed.
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "${PYTHON:-python3} is not Python 3.11, 3.12 or 3.13; set PYTHON to the path of one."
}

# Debian packages the venv modules separately.
need_venv_module() {
  local python=$1 package
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  package=$("$python" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')
  apt_install "$package" || die "$python cannot make virtual environments; install $package."
}

# Each step stores a hash of its input files and runs again only if they have changed.
changed() { [[ ! -f $venv/.$1 || $(<"$venv/.$1") != "$(hash_of "${@:2}")" ]]; }
remember() { hash_of "${@:2}" >"$venv/.$1"; }
hash_of() { cat -- "$@" | sha256sum; }

usable() {
  # Also fails if the interpreter was removed, or replaced by one that looks for pip elsewhere.
  "$venv/bin/python" -c 'import pip' 2>/dev/null || return
  # The scripts in it contain the path of the folder in which they were created.
  [[ ! -f $venv/.home || $(<"$venv/.home") == "$PWD" ]] || return
  [[ -z ${PYTHON:-} || $("$PYTHON" -V 2>/dev/null) == $("$venv/bin/python" -V) ]]
}

make_venv() {
  local python
  usable && return
  python=$(find_python)
  need_venv_module "$python"
  say "Making $venv with $("$python" -V)"
  quietly "$python" -m venv --clear "$venv" || die "could not make $venv."
  pwd >"$venv/.home"
}

pip_install() { quietly "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

# Installs the packages of a lock file: NAME WHAT LOCK_FILE
install_locked() {
  changed "$1" "$3" || return 0
  say "Installing $2"
  pip_install --require-hashes -r "$3" || return
  remember "$1" "$3"
}

no_network() { die "could not install $1. Is there a network?"; }

service() {
  make_venv
  install_locked dependencies "the dependencies" requirements.lock || no_network "the dependencies"
  if changed package pyproject.toml; then
    say "Installing the service"
    pip_install --no-deps --no-build-isolation -e . || no_network "the service"
    remember package pyproject.toml
  fi
}

tools() {
  service
  install_locked tools "the tools for tests and lint" tests/requirements.lock || no_network "the tools"
}

# Large, and for the fault suite alone; some platforms have no package.
faults() {
  tools
  install_locked fuzzer "the fuzzer" tests/faults/requirements.lock || say "Continuing without the fuzzer"
}

clients() {
  local packages=tests/clients/package-lock.json
  tools
  install_locked node "Node.js and a generator" tests/clients/requirements.lock || no_network "Node.js"
  if changed packages "$packages" || [[ ! -d tests/clients/node_modules ]]; then
    say "Installing the generators of clients"
    # npm is a script that looks for node on the PATH. The lock file has the hashes.
    PATH=$(realpath "$venv/bin"):$PATH quietly npm --prefix tests/clients ci || no_network "the generators"
    remember packages "$packages"
  fi
}

peers() {
  venv=$venv-bench
  make_venv
  install_locked peers "the peers" tests/load/requirements.lock || no_network "the peers"
}

case ${1:-} in
  service | tools | faults | clients | peers) "$1" ;;
  *) die "venv.sh makes: service, tools, faults, clients or peers." ;;
esac
