#!/usr/bin/env bash
# Rewrites the lock files after a change of the dependencies; versions stay unless given --upgrade.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh

# One file for all Python versions: packages that differ between them have markers.
compile() { # LOCK_FILE SOURCES AND OPTIONS...
  say "Writing $1"
  "${VENV:-.venv}/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --output-file "$1" "${@:2}"
  sed -i '1i # Written by ./build.sh lock; do not edit.' "$1"
}

docker/venv.sh tools
# setuptools is locked as well, because the service is built without build isolation.
echo "setuptools>=80" | compile requirements.lock pyproject.toml - "$@"
compile requirements-otel.lock pyproject.toml --extra otel -c requirements.lock "$@"
compile tests/requirements.lock tests/requirements.in -c requirements-otel.lock "$@"
compile tests/tools/requirements.lock tests/tools/requirements.in "$@"
compile tests/clients/requirements.lock tests/clients/requirements.in -c tests/requirements.lock "$@"
compile tests/load/requirements.lock tests/load/requirements.in -c requirements.lock "$@"
compile tests/faults/requirements.lock tests/faults/requirements.in "$@"
