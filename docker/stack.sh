#!/usr/bin/env bash
# Starts, stops and follows the containers of docker-compose.yml: stack.sh up|down|logs|secrets
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh

# Whether a variable has a value in the environment or in .env. Compose answers, because it is the
# one that parses .env.
is_set() {
  docker compose --project-directory . --file - config --quiet 2>/dev/null <<EOF
name: probe
services: {probe: {image: scratch, environment: {VALUE: "\${$1:?}"}}}
EOF
}

# The compose files of the stack. COMPOSE_FILE takes precedence.
choose_files() {
  files=()
  ! is_set COMPOSE_FILE || return 0
  files=(--file docker-compose.yml)
  ! is_set CATALOG_TLS || files+=(--file docker/tls.yml)
}

compose() { docker compose "${files[@]}" "$@"; }

need_compose() { docker compose version >/dev/null 2>&1 || die "Docker or its Compose plugin is missing."; }

# Runs `catalog secrets` in the image, so that a server needs no Python of its own.
write_secrets() {
  local user
  user=$(id -u):$(id -g)
  # In rootless Docker root is the user who runs it.
  [[ $(docker info --format '{{.SecurityOptions}}') != *name=rootless* ]] || user=0:0
  # The stack's containers are in another compose file, so Compose would call them orphans.
  COMPOSE_IGNORE_ORPHANS=true docker compose --progress quiet --project-directory . \
    --file docker/secrets.yml run --rm --user "$user" secrets
}

up() {
  local version source administrator
  docker/engine.sh
  choose_files
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  export CATALOG_VERSION=${CATALOG_VERSION:-$version}
  export CATALOG_REVISION=${CATALOG_REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
  source=$(git config --get remote.origin.url 2>/dev/null || true)
  # Other forms may name a local folder, or contain a password.
  [[ $source != https://* || $source == *@* ]] || export CATALOG_SOURCE=${CATALOG_SOURCE:-$source}
  say "Building the image"
  compose build app || die "could not build the image."
  write_secrets || die "could not write the secrets."
  say "Starting; the first start takes a minute"
  if ! compose up --detach --remove-orphans "$@"; then
    show_faults
    die "could not start."
  fi
  wait_until_ready
  say "Ready: $(url_of "$(published)")/api/products"
  administrator=$(compose exec -T app printenv ADMIN_USERNAME) || administrator="admin"
  say "Sign in as $administrator; the password is in $PWD/.secrets/admin_password"
}

# Where nginx is published: address:port.
published() { compose port nginx 80 2>/dev/null; }

# The URL for users. An nginx on all addresses is reached by the machine's own.
url_of() {
  local host=${1%:*} port=${1##*:}
  if [[ $host == 0.0.0.0 || $host == '[::]' || $host == :: ]]; then
    host=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p') || true
    [[ -n $host ]] || host=$(hostname -I 2>/dev/null | cut -d ' ' -f 1) || true
  fi
  host=${host:-127.0.0.1}
  [[ $port == 80 ]] || host+=:$port
  printf 'http://%s' "$host"
}

# Checks readiness as a client sees it, through nginx.
is_ready() {
  local host=${1%:*} line
  [[ $host != 0.0.0.0 && $host != '[::]' && $host != :: ]] || host=127.0.0.1
  host=${host#[} && host=${host%]}
  # shellcheck disable=SC2016  # Expanded by the inner shell.
  line=$(timeout 3 bash -c '
    exec 3<>"/dev/tcp/$0/$1" && printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && head -n 1 <&3' \
    "$host" "${1##*:}" 2>/dev/null) && [[ $line == *' 200 '* ]]
}

wait_until_ready() {
  local end=$((SECONDS + ${CATALOG_UP_TIMEOUT:-180})) reported_at=$SECONDS
  until is_ready "$(published)"; do
    if ((SECONDS >= end)) || is_restarting; then
      show_faults
      die "the service is not ready: /readyz does not respond with 200."
    fi
    if ((SECONDS >= reported_at + 5)); then
      reported_at=$SECONDS
      say "Waiting for $(unhealthy | tr '\n' ',' | sed 's/,$//; s/,/, /g')"
    fi
    sleep 1
  done
}

# Containers that are not running and healthy, one a line: service, state and health.
unhealthy() {
  # shellcheck disable=SC2046
  docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}} is {{.State.Status}}{{with .State.Health}} and {{.Status}}{{end}}' \
    $(compose ps --all --quiet) 2>/dev/null | grep -vE 'is running( and healthy)?$' | sort -u
}

# Whether a container is in a restart loop.
is_restarting() {
  local count
  # shellcheck disable=SC2046
  for count in $(docker inspect --format '{{if .State.Restarting}}{{.RestartCount}}{{end}}' $(compose ps --all --quiet)); do
    ((count < 5)) || return 0
  done
  return 1
}

show_faults() {
  local line
  while read -r line; do
    say "$line; the end of its log:"
    compose logs --no-color --no-log-prefix --tail 20 "${line%% *}"
  done < <(unhealthy) >&2
}

down() {
  local word
  need_compose
  choose_files
  for word in "$@"; do
    [[ $word != -v && $word != --volumes ]] || say "Removing the data, too: $(compose --profile '*' config --volumes | tr '\n' ' ')"
  done
  compose --profile '*' down --remove-orphans "$@"
}

logs() {
  need_compose
  choose_files
  [[ $# -gt 0 ]] || set -- --follow --tail 100
  compose --profile '*' logs "$@"
}

case ${1:-} in
  up | down | logs) "$1" "${@:2}" ;;
  secrets) write_secrets ;;
  *) die "stack.sh knows: up, down, logs and secrets." ;;
esac
