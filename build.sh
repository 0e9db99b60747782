#!/usr/bin/env bash
# Sets up, runs and checks the service; CI runs the same commands. See: ./build.sh help
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

venv=${VENV:-.venv}

usage() {
  cat <<'EOF'
Usage: ./build.sh <command> [arguments]

  setup    make .venv, with the locked dependencies and the service in it
  run      set up, then serve on http://127.0.0.1:8000 with SQLite under var/;
           arguments go to `catalog serve`, DATABASE_URL and CATALOG_* are respected
  test     set up, then run the tests on SQLite, on MariaDB and, where
           CATALOG_TEST_MYSQL_URL leads, on MySQL, with a Redis of their own;
           arguments go to pytest:
           ./build.sh test --engine sqlite -k products
  bench    set up, then measure the service beside its peers, which get a folder of
           their own, on a MySQL or MariaDB of its own or on one that you give:
           ./build.sh bench --url mysql://… --workload hot --peer litestar --write;
           ./build.sh bench --help tells more
  lint     check format, code, types and the direction of imports
  format   format the code and fix what can be fixed by itself
  lock     write the lock files anew after a change of the dependencies; versions
           stay where they are unless asked for: ./build.sh lock --upgrade
  help     print this

PYTHON names the interpreter (3.11 to 3.13), VENV a folder other than .venv.
EOF
}

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# What a command prints is of interest only when it fails, and then not that pip tried again.
quietly() {
  local output
  output=$("$@" 2>&1) && return
  grep -v '^WARNING: ' <<<"$output" | tail -n 20 >&2
  return 1
}

# --- Python and Debian ------------------------------------------------------------------------

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    # It is run and not only looked for: a version manager has shims for what is not installed.
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "${PYTHON:-python3} is not Python 3.11, 3.12 or 3.13; set PYTHON to the path of one."
}

# Debian packs the modules that make virtual environments separately.
need_venv_module() {
  local python=$1 package
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  package=$("$python" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')
  apt_install "$package" || die "$python cannot make virtual environments; install $package."
}

# MariaDB's core packages hold the programs and no service: nothing is started or enabled.
want_mariadb() {
  PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null && return
  apt_install mariadb-server-core mariadb-client-core || say "Going on without MariaDB"
}

# The server is in this package too, under another name; the one named after it starts a service.
want_redis() {
  local name
  for name in redis-server valkey-server redis-check-rdb; do
    PATH=$PATH:/usr/sbin command -v "$name" >/dev/null && return
  done
  apt_install redis-tools || say "Going on without Redis"
}

# The one with the module that the cache needs; tests without it are skipped, and say so.
want_nginx() {
  [[ -n ${CATALOG_TEST_NGINX:-} ]] && return
  [[ -x $venv/nginx/nginx ]] || say "Fetching nginx"
  if quietly tests/server/fetch_nginx.sh "$venv/nginx"; then
    CATALOG_TEST_NGINX=$(realpath "$venv/nginx/nginx")
    export CATALOG_TEST_NGINX
  else
    say "Going on without nginx's cache"
  fi
}

# For rules, alerts and the dashboard.
want_prometheus() {
  [[ -n ${CATALOG_TEST_PROMETHEUS:-} ]] && return
  [[ -x $venv/prometheus/prometheus ]] || say "Fetching Prometheus"
  if quietly tests/monitoring/fetch_prometheus.sh "$venv/prometheus"; then
    CATALOG_TEST_PROMETHEUS=$(realpath "$venv/prometheus/prometheus")
    export CATALOG_TEST_PROMETHEUS
  else
    say "Going on without Prometheus"
  fi
}

want_wrk() {
  command -v wrk >/dev/null && return
  apt_install wrk || die "wrk makes the load; install it."
}

apt_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
  say "Installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  # The usual reason: package lists that are old, or missing as in container images.
  quietly apt-get update && quietly apt-get install -y --no-install-recommends "$@"
}

# --- the virtual environment ------------------------------------------------------------------

# Each step leaves a hash of the files it worked from, and runs again only when they have changed.
changed() { [[ ! -f $venv/.$1 || $(<"$venv/.$1") != "$(hash_of "${@:2}")" ]]; }
remember() { hash_of "${@:2}" >"$venv/.$1"; }
hash_of() { cat -- "$@" | sha256sum; }

usable() {
  # Fails too when the interpreter was removed, or replaced by one that looks elsewhere for pip.
  "$venv/bin/python" -c 'import pip' 2>/dev/null || return
  # Its scripts hold the path of the folder they were made in.
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

pip_install() {
  quietly "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
    die "could not install from ${*: -1}. Is there a network?"
}

setup() {
  make_venv
  if changed dependencies requirements.lock; then
    say "Installing the dependencies"
    pip_install --require-hashes -r requirements.lock
    remember dependencies requirements.lock
  fi
  if changed package pyproject.toml; then
    say "Installing the service"
    pip_install --no-deps --no-build-isolation -e .
    remember package pyproject.toml
  fi
}

setup_tools() {
  setup
  if changed tools tests/requirements.lock; then
    say "Installing the tools for tests and lint"
    pip_install --require-hashes -r tests/requirements.lock
    remember tools tests/requirements.lock
  fi
}

# The peers have their own, so that nothing of theirs gets into what is measured.
setup_peers() {
  local venv=$venv-bench
  make_venv
  if changed peers tests/load/requirements.lock; then
    say "Installing the peers"
    pip_install --require-hashes -r tests/load/requirements.lock
    remember peers tests/load/requirements.lock
  fi
}

# --- commands ---------------------------------------------------------------------------------

# Where `catalog serve` will listen, going by its arguments.
bind_of() {
  local bind=${CATALOG_BIND:-127.0.0.1:8000}
  while [[ $# -gt 0 ]]; do
    case $1 in
      --bind=*) bind=${1#--bind=} ;;
      --bind) bind=${2:-} ;;
    esac
    shift
  done
  [[ $bind == unix:* ]] || bind=http://$bind
  printf '%s' "$bind"
}

serve() {
  setup
  mkdir -p var
  export CATALOG_LOG_FORMAT=${CATALOG_LOG_FORMAT:-console} # A person is reading.
  say "Starting on $(bind_of "$@") (Ctrl-C stops it)"
  say "Sign in as ${ADMIN_USERNAME:-admin}: the password is in ADMIN_PASSWORD or, at the first start, printed below"
  exec "$venv/bin/catalog" serve "$@"
}

run_tests() {
  setup_tools
  want_mariadb
  want_redis
  want_nginx
  want_prometheus
  exec "$venv/bin/python" -m pytest "$@"
}

bench() {
  setup_tools
  setup_peers
  want_mariadb
  want_wrk
  want_nginx
  exec "$venv/bin/python" -m tests.load.bench --peers-python "$venv-bench/bin/python" "$@"
}

lint() {
  local failed=0
  setup_tools
  say "Format" && "$venv/bin/ruff" format --check . || failed=1
  say "Code" && "$venv/bin/ruff" check . || failed=1
  say "Types" && "$venv/bin/mypy" || failed=1
  say "Imports" && "$venv/bin/lint-imports" --no-logo || failed=1
  return "$failed"
}

format() {
  setup_tools
  "$venv/bin/ruff" check --fix . || true # What is left, lint reports.
  "$venv/bin/ruff" format .
}

lock() {
  setup_tools
  say "Writing requirements.lock"
  # setuptools builds the service without a network of its own, so it is locked like the rest.
  echo "setuptools>=80" | compile requirements.lock pyproject.toml - "$@"
  say "Writing requirements-otel.lock"
  compile requirements-otel.lock pyproject.toml --extra otel -c requirements.lock "$@"
  say "Writing tests/requirements.lock"
  compile tests/requirements.lock tests/requirements.in -c requirements-otel.lock "$@"
  say "Writing tests/load/requirements.lock"
  compile tests/load/requirements.lock tests/load/requirements.in -c requirements.lock "$@"
}

# One file for every Python: packages that differ between them carry markers.
compile() {
  "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --output-file "$1" "${@:2}"
  sed -i '1i # Written by ./build.sh lock; do not edit.' "$1"
}

case ${1:-help} in
  setup) setup ;;
  run) serve "${@:2}" ;;
  test) run_tests "${@:2}" ;;
  bench) bench "${@:2}" ;;
  lint) lint ;;
  format) format ;;
  lock) lock "${@:2}" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
