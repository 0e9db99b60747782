#!/usr/bin/env bash
# Runs the benchmark with all that it needs: bench.sh [arguments of tests.load.bench]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
# shellcheck source=docker/messages.sh
. docker/messages.sh
# shellcheck source=docker/apt.sh
. docker/apt.sh
# shellcheck source=tests/programs.sh
. tests/programs.sh

venv=${VENV:-.venv}
docker/venv.sh tools
docker/venv.sh peers
want_mariadb
need_clients
want_nginx
exec "$venv/bin/python" -m tests.load.bench --peers-python "$venv-bench/bin/python" "$@"
