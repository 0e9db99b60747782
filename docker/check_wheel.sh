#!/usr/bin/env bash
# Installs a wheel into an empty environment and lets it serve: check_wheel.sh FOLDER pip|pipx|uv
set -euo pipefail

folder=$(realpath -- "${1:?usage: check_wheel.sh FOLDER pip|pipx|uv}")
installer=${2:?usage: check_wheel.sh FOLDER pip|pipx|uv}
wheel=$(echo "$folder"/catalog-*.whl)
place=$(mktemp -d)
server=
trap '[[ -z $server ]] || { kill "$server"; wait "$server" || true; }; rm -rf "$place"' EXIT
# Not in the clone, whose folder would serve in place of the wheel.
cd -- "$place"

case $installer in
  pip)
    python3 -m venv environment
    environment/bin/pip install --quiet "${wheel}[client]"
    catalog=$place/environment/bin/catalog
    ;;
  pipx)
    export PIPX_HOME=$place/pipx PIPX_BIN_DIR=$place/bin
    pipx install "${wheel}[client]"
    catalog=$place/bin/catalog
    ;;
  uv)
    uv venv --quiet environment
    uv pip install --quiet --python environment/bin/python "${wheel}[client]"
    catalog=$place/environment/bin/catalog
    ;;
  *)
    echo "check_wheel.sh installs with pip, pipx or uv." >&2
    exit 2
    ;;
esac

"$catalog" --version
CATALOG_BIND=127.0.0.1:0 "$catalog" serve >log 2>&1 &
server=$!
url=
for _ in $(seq 120); do
  url=$(sed -n 's/.*"url": *"\([^"]*\)".*"event": *"serving".*/\1/p' log | head -n 1)
  [[ -z $url ]] || break
  kill -0 "$server" || { cat log; exit 1; }
  sleep 0.5
done
[[ -n $url ]] || { cat log; exit 1; }
# One file of each kind that is not Python code: a template, the console's scripts, the documentation's.
for path in /readyz / /docs /openapi.json /api/products \
  "$(curl -fsS "$url/" | sed -n 's/.*src="\([^"]*app\.js\)".*/\1/p')"; do
  curl -fsS -o answer "$url$path" || { echo "$path failed"; cat log; exit 1; }
  [[ -s answer ]] || { echo "$path is empty"; exit 1; }
done
"$catalog" conformance "$url"
echo "The wheel, installed with $installer, serves and keeps the contract."
