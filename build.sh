#!/usr/bin/env bash
# Sets up, runs and checks the service; CI runs the same commands. See: ./build.sh help
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

venv=${VENV:-.venv}

usage() {
  cat <<'EOF'
Usage: ./build.sh <command> [arguments]

  setup    create .venv with the locked dependencies and the service
  run      set up, then serve on http://127.0.0.1:8000 with SQLite under var/;
           arguments go to `catalog serve`, DATABASE_URL and CATALOG_* are respected
  test     set up, then run the tests on SQLite, on MariaDB and, if
           CATALOG_TEST_MYSQL_URL is set, on MySQL, with a Redis of their own;
           arguments go to pytest:
           ./build.sh test --engine sqlite -k products
  faults   set up, then run the fault suite: failing databases and processes, hostile
           clients and input; some 7 minutes, or up to 2 hours with --full;
           other arguments go to pytest: ./build.sh faults -k database
  bench    set up, then measure the service against its peers, which get a virtual
           environment of their own, on a MySQL or MariaDB of its own or on a given one:
           ./build.sh bench --url mysql://… --workload hot --peer litestar --write;
           see ./build.sh bench --help
  up       start the containers of docker-compose.yml on http://127.0.0.1:8080, with a
           new .env if there is none, and wait until they are ready; installs Docker
           if it is missing; arguments go to `docker compose up`: --scale app=4
  down     stop and remove the containers; keeps the data unless given --volumes
  logs     follow their logs; arguments go to `docker compose logs`
  secrets  only write .env, if there is none, and the secrets that `up` needs
  lint     check format, code, types, import directions, scripts and containers
  format   format the code and apply automatic fixes
  lock     rewrite the lock files after a change of the dependencies; keeps versions
           unless given --upgrade
  help     print this help

PYTHON names the interpreter (3.11 to 3.13), VENV a folder other than .venv. Settings of
the containers, such as CATALOG_HTTP_BIND, are in .env; see .env.example.
EOF
}

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# Prints a command's output only if it fails, without pip's warnings about retries.
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
    # Executed, not only looked up: version managers have shims for versions that are not installed.
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "${PYTHON:-python3} is not Python 3.11, 3.12 or 3.13; set PYTHON to the path of one."
}

# Debian packages the venv modules separately.
need_venv_module() {
  local python=$1 package
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  package=$("$python" -c 'import sys; print("python{}.{}-venv".format(*sys.version_info))')
  apt_install "$package" || die "$python cannot make virtual environments; install $package."
}

# MariaDB's core packages have the programs without a service, so nothing is started or enabled.
want_mariadb() {
  PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null && return
  apt_install mariadb-server-core mariadb-client-core || say "Going on without MariaDB"
}

# redis-tools has the server too, under another name; the package redis-server starts a service.
want_redis() {
  local name
  for name in redis-server valkey-server redis-check-rdb; do
    PATH=$PATH:/usr/sbin command -v "$name" >/dev/null && return
  done
  apt_install redis-tools || say "Going on without Redis"
}

# An nginx with the module that the cache requires; without it, tests are skipped with a message.
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

# For the tests of rules, alerts and the dashboard.
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

want_clients() {
  command -v wrk >/dev/null && command -v h2load >/dev/null && return
  apt_install wrk nghttp2-client || die "wrk and h2load make the load; install them."
}

apt_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
  say "Installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get "${patient[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  # The usual cause: package lists that are outdated, or missing as in container images.
  apt_update && quietly apt-get "${patient[@]}" install -y --no-install-recommends "$@"
}

# In a server's first minutes other programs hold apt's lock.
patient=(-o DPkg::Lock::Timeout=300)

apt_update() {
  local output
  for _ in {1..60}; do
    output=$(apt-get update 2>&1) && return
    [[ $output == *'Could not get lock'* ]] || break
    sleep 5
  done
  tail -n 20 <<<"$output" >&2
  return 1
}

# --- the virtual environment ------------------------------------------------------------------

# Each step stores a hash of its input files and runs again only if they have changed.
changed() { [[ ! -f $venv/.$1 || $(<"$venv/.$1") != "$(hash_of "${@:2}")" ]]; }
remember() { hash_of "${@:2}" >"$venv/.$1"; }
hash_of() { cat -- "$@" | sha256sum; }

usable() {
  # Also fails if the interpreter was removed, or replaced by one that looks for pip elsewhere.
  "$venv/bin/python" -c 'import pip' 2>/dev/null || return
  # The scripts in it contain the path of the folder in which they were created.
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

# The peers have an environment of their own, so that their packages do not affect measurements.
setup_peers() {
  local venv=$venv-bench
  make_venv
  if changed peers tests/load/requirements.lock; then
    say "Installing the peers"
    pip_install --require-hashes -r tests/load/requirements.lock
    remember peers tests/load/requirements.lock
  fi
}

# --- Docker -----------------------------------------------------------------------------------

compose() {
  local files=(--file docker-compose.yml)
  [[ -z $(setting CATALOG_TLS) ]] || files+=(--file docker/tls.yml)
  # COMPOSE_FILE takes precedence.
  [[ -z $(setting COMPOSE_FILE) ]] || files=()
  docker compose "${files[@]}" "$@"
}

need_docker() {
  docker compose version >/dev/null 2>&1 || install_docker
  docker info >/dev/null 2>&1 || start_docker
}

start_docker() {
  if [[ $EUID -ne 0 ]]; then
    docker info 2>&1 | tail -n 1 >&2
    die "Docker does not answer. Does it run, and are you root or in the group docker?"
  fi
  say "Starting Docker"
  if [[ -d /run/systemd/system ]]; then
    quietly systemctl enable --now docker
  else
    quietly service docker start
  fi || die "Docker does not start."
  for _ in {1..60}; do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  docker info 2>&1 | tail -n 5 >&2
  die "Docker does not answer."
}

# Prefers the distribution's packages, which are updated with it. The Compose plugin is
# docker-compose-v2 in Ubuntu and docker-compose in Debian 13. In Debian 12 the latter is Compose
# v1, which cannot read this stack, so Docker's own packages are installed there.
install_docker() {
  local engine=() plugin=()
  [[ $EUID -eq 0 ]] || die "Docker or its Compose plugin is missing; install it, or run this as root."
  command -v apt-get >/dev/null || die "Docker with its Compose plugin is missing; install it first."
  apt_update || die "could not ask for packages. Is there a network?"
  if offers docker-compose-v2; then
    plugin=(docker-compose-v2)
  elif offers docker-compose 2; then
    plugin=(docker-compose)
  else
    add_dockers_packages
    engine=(docker-ce docker-ce-cli containerd.io)
    plugin=(docker-compose-plugin docker-buildx-plugin)
  fi
  if [[ ${#engine[@]} -eq 0 ]]; then
    engine=(docker.io iptables ca-certificates)
    # Part of docker.io in older releases.
    ! offers docker-cli || engine+=(docker-cli)
    ! offers docker-buildx || plugin+=(docker-buildx)
  fi
  # Keeps an installed engine.
  ! command -v dockerd >/dev/null || engine=()
  apt_install "${engine[@]}" "${plugin[@]}" || die "could not install Docker."
  docker compose version >/dev/null 2>&1 || die "Docker is there, but its Compose plugin is not."
}

# Whether a package is available in this major version or newer.
offers() {
  local version
  version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9]*:\)\?//p')
  [[ -n $version && $version != '(none)' && ${version%%.*} -ge ${2:-0} ]]
}

add_dockers_packages() {
  local id codename
  # shellcheck disable=SC1091
  read -r id codename < <(. /etc/os-release && echo "$ID ${VERSION_CODENAME:-}")
  [[ $id == debian || $id == ubuntu ]] || die "Docker can be installed on Debian and Ubuntu only; install it first."
  apt_install ca-certificates curl || die "could not install curl."
  say "Adding Docker's packages for $id $codename"
  install -d -m 0755 /etc/apt/keyrings
  quietly curl --fail --silent --show-error --location --output /etc/apt/keyrings/docker.asc \
    "https://download.docker.com/linux/$id/gpg" || die "could not fetch the key of Docker's packages."
  echo "deb [arch=$(dpkg --print-architecture) signed-by=/etc/apt/keyrings/docker.asc]" \
    "https://download.docker.com/linux/$id $codename stable" >/etc/apt/sources.list.d/docker.list
  apt_update || die "could not ask for Docker's packages."
}

# --- .env and secrets -------------------------------------------------------------------------

# The value of a variable in .env, parsed as by Compose: without quotes and blanks around =.
env_value() {
  local value
  [[ -f .env ]] || return 0
  value=$(grep -E "^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=" .env | tail -n 1) || return 0
  value=$(sed -E 's/^[^=]*=[[:space:]]*//; s/[[:space:]]+$//' <<<"$value")
  case $value in
    \'*) value=${value#\'} && value=${value%%\'*} ;;
    \"*) value=${value#\"} && value=${value%%\"*} ;;
    *) value=$(sed -E 's/(^|[[:space:]]+)#.*$//' <<<"$value") ;;
  esac
  printf '%s' "$value"
}

# Compose's precedence: the environment, then .env.
setting() { if [[ -n ${!1:-} ]]; then printf '%s' "${!1}"; else env_value "$1"; fi; }

random() { od -An -v -N "$1" -t x1 /dev/urandom | tr -d ' \n'; }

write_env() {
  local new
  [[ ! -e .env ]] || return 0
  say "Writing .env with new secrets"
  new=$(mktemp .env.XXXXXX)
  cat >"$new" <<EOF
# Written by ./build.sh, which does not change it again; .env.example tells what else can be set.
DATABASE_URL=mysql+pymysql://catalog:$(random 24)@mysql:3306/catalog
JWT_SECRET_KEY=$(random 32)
# The administrator's at the first start; see ADMIN_USERNAME
ADMIN_PASSWORD=$(random 12)
# Where nginx is reached: a port, or address:port
CATALOG_HTTP_BIND=${CATALOG_HTTP_BIND:-127.0.0.1:8080}
EOF
  chmod 600 "$new"
  # Atomic, and never overwrites an existing .env.
  mv -n "$new" .env
}

# The files are readable by all, because containers run as users of their own; the folder is
# private. Files are written in place, because a running container would keep the old one after a
# rename.
secret() {
  local file=.secrets/$1
  [[ -f $file && $(<"$file") == "$2" ]] || printf '%s' "$2" >"$file"
  chmod 644 "$file"
}

# Secrets that .env does not set are generated once.
kept() { if [[ -s .secrets/$1 ]]; then cat ".secrets/$1"; else random "$2"; fi; }

write_secrets() {
  local url rest user password database name
  mkdir -p .secrets
  chmod 700 .secrets
  url=$(env_value DATABASE_URL)
  [[ -n $url ]] || url=mysql://catalog:$(kept mysql_password 24)@mysql:3306/catalog
  rest=${url#*://}
  [[ $url =~ ^(mysql|mariadb)(\+[a-z]+)?:// && ${rest#*@} =~ ^mysql(:3306)?/[^?]+ ]] ||
    die "DATABASE_URL in .env does not lead to the MySQL of this stack: mysql://USER:PASSWORD@mysql:3306/NAME"
  user=$(decoded "${rest%%[:@]*}")
  password=${rest%%@*} && password=$(decoded "${password#*:}")
  database=${rest#*@*/} && database=$(decoded "${database%%\?*}")
  secret database_url "$url"
  secret mysql_database "$database"
  if [[ $user == root ]]; then
    secret mysql_root_password "$password"
    user='' password=''
  else
    secret mysql_root_password "$(kept mysql_root_password 24)"
  fi
  secret mysql_user "$user"
  secret mysql_password "$password"

  password=$(kept valkey_auth 24) && password=${password#requirepass }
  secret valkey_auth "requirepass $password"
  url=$(env_value CATALOG_LIMITS_URL)
  secret limits_url "${url:-redis://:$password@valkey:6379/0}"

  password=$(env_value JWT_SECRET_KEY)
  secret jwt_secret_key "${password:-$(kept jwt_secret_key 32)}"
  password=$(env_value ADMIN_PASSWORD)
  secret admin_password "${password:-$(kept admin_password 12)}"
  secret grafana_admin_password "$(kept grafana_admin_password 12)"
  for name in jwt_previous_secret_keys jwt_private_key jwt_previous_public_keys; do
    secret "$name" "$(env_value "CATALOG_${name^^}")"
  done
}

# Percent-decoding: %40 is @.
decoded() {
  local text=${1//\\/\\\\}
  printf '%b' "${text//%/\\x}"
}

# --- commands ---------------------------------------------------------------------------------

# The address that `catalog serve` will listen on, by its arguments.
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
  export CATALOG_LOG_FORMAT=${CATALOG_LOG_FORMAT:-console} # For reading in a terminal.
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

# Large, and for the fault suite alone. On platforms without a package fuzzing is skipped with a
# message.
want_fuzzer() {
  changed fuzzer tests/faults/requirements.lock || return 0
  say "Installing the fuzzer"
  if quietly "$venv/bin/pip" install --quiet --require-hashes -r tests/faults/requirements.lock; then
    remember fuzzer tests/faults/requirements.lock
  else
    say "Going on without the fuzzer"
  fi
}

# Not in parallel: the checks load the machine and measure times.
run_faults() {
  setup_tools
  want_fuzzer
  want_mariadb
  want_redis
  want_nginx
  exec "$venv/bin/python" -m pytest -m faults --timeout 3600 tests/faults "$@"
}

bench() {
  setup_tools
  setup_peers
  want_mariadb
  want_clients
  want_nginx
  exec "$venv/bin/python" -m tests.load.bench --peers-python "$venv-bench/bin/python" "$@"
}

up() {
  local bind version source
  need_docker
  write_env
  write_secrets
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
  export CATALOG_VERSION=${CATALOG_VERSION:-$version}
  export CATALOG_REVISION=${CATALOG_REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
  source=$(git config --get remote.origin.url 2>/dev/null || true)
  # Other forms may name a local folder, or contain a password.
  [[ $source != https://* || $source == *@* ]] || export CATALOG_SOURCE=${CATALOG_SOURCE:-$source}
  say "Building the image"
  compose build app || die "could not build the image."
  say "Starting; the first time takes a minute"
  if ! compose up --detach --remove-orphans "$@"; then
    tell_whats_wrong
    die "could not start."
  fi
  wait_until_ready
  bind=$(setting CATALOG_HTTP_BIND)
  say "Ready: $(url_of "${bind:-127.0.0.1:8080}")/api/products"
  bind=$(env_value ADMIN_USERNAME)
  say "Sign in as ${bind:-admin}; the password is in $PWD/.secrets/admin_password"
}

# The URL for users, by CATALOG_HTTP_BIND.
url_of() {
  local host=${1%:*} port=${1##*:}
  [[ $1 == *:* ]] || host=0.0.0.0
  if [[ $host == 0.0.0.0 || $host == '[::]' ]]; then
    host=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p') || true
    [[ -n $host ]] || host=$(hostname -I 2>/dev/null | cut -d ' ' -f 1) || true
  fi
  host=${host:-127.0.0.1}
  [[ $port == 80 ]] || host+=:$port
  printf 'http://%s' "$host"
}

# Checks readiness as a client sees it, through nginx.
answers() {
  local host=${1%:*} line
  [[ $1 == *:* && $host != 0.0.0.0 && $host != '[::]' ]] || host=127.0.0.1
  host=${host#[} && host=${host%]}
  # shellcheck disable=SC2016  # Expanded by the inner shell.
  line=$(timeout 3 bash -c '
    exec 3<>"/dev/tcp/$0/$1" && printf "GET /readyz HTTP/1.0\r\n\r\n" >&3 && head -n 1 <&3' \
    "$host" "${1##*:}" 2>/dev/null) && [[ $line == *' 200 '* ]]
}

wait_until_ready() {
  local bind end=$((SECONDS + ${CATALOG_UP_TIMEOUT:-180})) told=$SECONDS
  bind=$(setting CATALOG_HTTP_BIND)
  until answers "${bind:-127.0.0.1:8080}"; do
    if ((SECONDS >= end)) || gives_up; then
      tell_whats_wrong
      die "it is not ready: /readyz does not answer with 200."
    fi
    if ((SECONDS >= told + 5)); then
      told=$SECONDS
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
gives_up() {
  local count
  # shellcheck disable=SC2046
  for count in $(docker inspect --format '{{if .State.Restarting}}{{.RestartCount}}{{end}}' $(compose ps --all --quiet)); do
    ((count < 5)) || return 0
  done
  return 1
}

tell_whats_wrong() {
  local line
  while read -r line; do
    say "$line; the last of its log:"
    compose logs --no-color --no-log-prefix --tail 20 "${line%% *}"
  done < <(unhealthy) >&2
}

down() {
  local word
  docker compose version >/dev/null 2>&1 || die "Docker or its Compose plugin is missing."
  for word in "$@"; do
    [[ $word != -v && $word != --volumes ]] || say "Removing the data, too: $(compose --profile '*' config --volumes | tr '\n' ' ')"
  done
  compose --profile '*' down --remove-orphans "$@"
}

logs() {
  docker compose version >/dev/null 2>&1 || die "Docker or its Compose plugin is missing."
  [[ $# -gt 0 ]] || set -- --follow --tail 100
  compose --profile '*' logs "$@"
}

lint() {
  local failed=0
  setup_tools
  say "Format" && "$venv/bin/ruff" format --check . || failed=1
  say "Code" && "$venv/bin/ruff" check . || failed=1
  say "Types" && "$venv/bin/mypy" || failed=1
  say "Imports" && "$venv/bin/lint-imports" --no-logo || failed=1
  say "Scripts" && git ls-files -z '*.sh' .ci/run | xargs -0 "$venv/bin/shellcheck" || failed=1
  say "Containers" && "$venv/bin/hadolint" docker/{,cluster/}Dockerfile || failed=1
  "$venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec \
    docker-compose.yml docker/{tls,swarm,cluster/compose}.yml || failed=1
  local kind
  for kind in github-workflows:workflows/*.yml dependabot:dependabot.yml \
    github-issue-forms:ISSUE_TEMPLATE/[!c]*.yml github-issue-config:ISSUE_TEMPLATE/config.yml; do
    # shellcheck disable=SC2086 # The pattern stands for several files.
    "$venv/bin/check-jsonschema" --builtin-schema "vendor.${kind%%:*}" \
      .github/${kind#*:} || failed=1
  done
  return "$failed"
}

format() {
  setup_tools
  "$venv/bin/ruff" check --fix . || true # Lint reports the rest.
  "$venv/bin/ruff" format .
}

lock() {
  setup_tools
  say "Writing requirements.lock"
  # setuptools is locked as well, because the service is built without build isolation.
  echo "setuptools>=80" | compile requirements.lock pyproject.toml - "$@"
  say "Writing requirements-otel.lock"
  compile requirements-otel.lock pyproject.toml --extra otel -c requirements.lock "$@"
  say "Writing tests/requirements.lock"
  compile tests/requirements.lock tests/requirements.in -c requirements-otel.lock "$@"
  say "Writing tests/load/requirements.lock"
  compile tests/load/requirements.lock tests/load/requirements.in -c requirements.lock "$@"
  say "Writing tests/faults/requirements.lock"
  compile tests/faults/requirements.lock tests/faults/requirements.in "$@"
}

# One file for all Python versions: packages that differ between them have markers.
compile() {
  "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --output-file "$1" "${@:2}"
  sed -i '1i # Written by ./build.sh lock; do not edit.' "$1"
}

case ${1:-help} in
  setup) setup ;;
  run) serve "${@:2}" ;;
  test) run_tests "${@:2}" ;;
  faults) run_faults "${@:2}" ;;
  bench) bench "${@:2}" ;;
  up) up "${@:2}" ;;
  down) down "${@:2}" ;;
  logs) logs "${@:2}" ;;
  secrets) write_env && write_secrets ;;
  lint) lint ;;
  format) format ;;
  lock) lock "${@:2}" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
