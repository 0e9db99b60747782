#!/usr/bin/env bash
# Installs the load generators of test_load_generators.py: from Debian if there are the rights, from npm,
# and from PyPI into an environment of its own that ends in -load. Those that cannot be installed are
# named; their tests are skipped.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
# shellcheck source=docker/messages.sh
. docker/messages.sh
# shellcheck source=docker/apt.sh
. docker/apt.sh

venv=${VENV:-.venv}
# Node.js may be a package of the environment.
PATH=$PWD/$venv/bin:$PATH
here=tests/tools

for pair in ab:apache2-utils siege:siege hey:hey wrk:wrk h2load:nghttp2-client; do
  command -v "${pair%%:*}" >/dev/null || apt_install "${pair#*:}" || say "Continuing without ${pair%%:*}"
done

if ! command -v npm >/dev/null; then
  say "Continuing without autocannon and artillery: there is no npm"
elif ! cmp -s "$here/package-lock.json" "$here/node_modules/installed.json"; then
  say "Installing autocannon and artillery"
  # Without the packages' own scripts: those of artillery fetch browsers.
  if quietly npm --prefix "$here" ci --ignore-scripts --no-audit --no-fund; then
    cp "$here/package-lock.json" "$here/node_modules/installed.json"
  else
    say "Continuing without autocannon and artillery"
  fi
fi

if ! cmp -s "$here/requirements.lock" "$venv-load/installed.lock"; then
  say "Installing locust"
  if "$venv/bin/python" -m venv --clear "$venv-load" &&
    quietly "$venv-load/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$here/requirements.lock"; then
    cp "$here/requirements.lock" "$venv-load/installed.lock"
  else
    say "Continuing without locust"
  fi
fi
