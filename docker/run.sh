#!/usr/bin/env bash
# Serves from this clone, for trials: run.sh [arguments of `catalog serve`]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh

docker/venv.sh service
mkdir -p var
bin=${VENV:-.venv}/bin
options=()
if [[ -f .env ]]; then
  options=(--env-file .env)
  # The MySQL of the stack, to which `catalog secrets` points .env, has no address outside of it.
  if [[ -z ${DATABASE_URL+set} && $("$bin/dotenv" --file .env get DATABASE_URL 2>/dev/null) =~ ://([^/]*@)?mysql(:[0-9]*)?/ ]] &&
    ! getent hosts mysql >/dev/null; then
    export DATABASE_URL=sqlite:///var/catalog.db
    say "Using $DATABASE_URL: the DATABASE_URL in .env is that of the containers"
  fi
fi
say "Starting (stop with Ctrl-C); the log has the address"
say "Sign in as ADMIN_USERNAME, or admin: the password is in ADMIN_PASSWORD or, at the first start, printed below"
exec "$bin/catalog" "${options[@]}" serve "$@"
