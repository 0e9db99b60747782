#!/usr/bin/env bash
# Formats the code and applies ruff's automatic fixes; lint reports the rest.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

docker/venv.sh tools
"${VENV:-.venv}/bin/ruff" check --fix . || true
"${VENV:-.venv}/bin/ruff" format .
