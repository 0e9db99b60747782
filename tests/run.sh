#!/usr/bin/env bash
# Runs tests with all programs that they use: run.sh test|coverage|faults|clients|mutants [arguments]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh
# shellcheck source=docker/apt.sh
. docker/apt.sh
# shellcheck source=tests/programs.sh
. tests/programs.sh

want_services() {
  want_mariadb
  want_redis
  want_nginx
}

# Otherwise each process that tests start compiles the service again: a sixth of its start.
unset PYTHONDONTWRITEBYTECODE

pytest=("${VENV:-.venv}/bin/python" -m pytest)
# As many processes as are of use: tests/conftest.py decides.
parallel=(-n auto --dist worksteal)

case ${1:-} in
  test)
    docker/venv.sh tools
    want_services
    want_prometheus
    want_chromium
    exec "${pytest[@]}" "${parallel[@]}" "${@:2}"
    ;;
  coverage)
    docker/venv.sh tools
    want_services
    want_prometheus
    want_chromium
    exec "${pytest[@]}" "${parallel[@]}" --cov --cov-report=term-missing:skip-covered "${@:2}"
    ;;
  faults)
    docker/venv.sh faults
    want_services
    # Not in parallel: the checks load the machine and measure times.
    exec "${pytest[@]}" -m faults tests/faults "${@:2}"
    ;;
  clients)
    docker/venv.sh clients
    exec "${pytest[@]}" -m clients tests/clients "${@:2}"
    ;;
  mutants)
    docker/venv.sh tools
    want_services
    exec "${VENV:-.venv}/bin/python" -m tests.mutants "${@:2}"
    ;;
  *) die "run.sh runs: test, coverage, faults, clients or mutants." ;;
esac
