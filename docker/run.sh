#!/usr/bin/env bash
# Serves from this clone, for trials: run.sh [arguments of `catalog serve`]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh

docker/venv.sh service
mkdir -p var
export CATALOG_LOG_FORMAT=${CATALOG_LOG_FORMAT:-console} # For reading in a terminal.
say "Starting (Ctrl-C stops it); the log says the address"
say "Sign in as ${ADMIN_USERNAME:-admin}: the password is in ADMIN_PASSWORD or, at the first start, printed below"
exec "${VENV:-.venv}/bin/catalog" serve "$@"
