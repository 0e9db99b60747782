#!/usr/bin/env bash
# Smoke test: builds the image and checks the whole stack, from a copy of this clone with its own
# names, secrets, data and addresses, which is removed in the end. Requires a Docker engine; without
# one it says so and exits with 77. Takes some minutes:
#
#   tests/deployment/smoke.sh
#
# SMOKE_KEEP=1 leaves the stack running and prints its folder.
#
# shellcheck disable=SC2016  # Single-quoted expressions are for other shells and programs.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

if ! docker compose version >/dev/null 2>&1 || ! docker info >/dev/null 2>&1; then
  echo "NOT RUN: image and stack, because there is no Docker engine with Compose." >&2
  exit 77
fi

# Random ports and names, so that two runs do not collide.
port=$((20000 + 2 * (RANDOM % 5000)))
export COMPOSE_PROJECT_NAME=catalog-smoke-$$ CATALOG_IMAGE=catalog-smoke-$$:latest
export CATALOG_HTTP_BIND=127.0.0.1:$port CATALOG_HTTPS_BIND=127.0.0.1:$((port + 1))
export CATALOG_PROXY_NETWORK=10.203.$((RANDOM % 200 + 50)).0/24 CATALOG_MYSQL_BUFFER_POOL=128M
export CATALOG_PROMETHEUS_BIND=127.0.0.1:$((port - 9999))
api=http://127.0.0.1:$port
# An interpreter with the packages of the tests, if there is one.
tester=$PWD/${VENV:-.venv}/bin/python
prometheus=prom/prometheus:v3.5.0
base=python:3.13-slim
budget=$((120 * 1000 * 1000))
size=0
ready_seconds='?'

folder=$(mktemp -d)
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory "$folder"
cd "$folder"

passed=0
failed=0
check() { # NAME COMMAND...
  if "${@:2}" >"$folder/output" 2>&1; then
    passed=$((passed + 1))
    printf 'ok    %4d s  %s\n' "$SECONDS" "$1"
  else
    failed=$((failed + 1))
    printf 'FAILED %3d s  %s\n' "$SECONDS" "$1"
    tail -n 30 "$folder/output" | sed 's/^/      /'
  fi
}

end() {
  local status=$?
  if [[ -n ${SMOKE_KEEP:-} ]]; then
    echo "The stack keeps running in $folder"
    return
  fi
  [[ $status -eq 0 ]] || { docker compose ps --all && docker compose logs --tail 20; } >&2 || true
  ./build.sh down --volumes --timeout 5 >/dev/null 2>&1 || true
  docker image rm --force "$CATALOG_IMAGE" >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap end EXIT

# --- helpers -----------------------------------------------------------------------------------

compose() { docker compose "$@"; }
in_app() { compose exec -T --index "${index:-1}" app "$@"; }
containers() { compose ps --all --quiet "$@"; }
status_of() { curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' "$@"; }
responds_with() { [[ $(status_of "${@:2}") == "$1" ]]; }
not() { ! "$@"; }
field() { sed "s/.*\"$1\":\"\\?\\([^\",}]*\\).*/\\1/"; }

size_of() { docker image inspect --format '{{.Size}}' "$1"; }
within_budget() {
  local over=$(($(size_of "$CATALOG_IMAGE") - $(size_of "$base")))
  echo "$over bytes over $base" && ((over <= budget)) && size=$over
}

first_requests() {
  local script=$folder/first_requests.sh
  sed -n '/^```bash$/,/^```$/{/^```/d;p}' docs/first_requests.md |
    sed "s|^api=.*|api=$api|; s|curl -s|curl --silent --show-error --max-time 10|" >"$script"
  bash -eu "$script" | tee "$folder/responses"
  local expected
  for expected in '"status":"ready"' '"username":"ada"' 'Desk lamp' ',Desk lamp,24.9' '"type":"created"' \
    '"message":"Product 2 deleted."' '"code":"not-found"' '"code":"session-ended"'; do
    grep -qF -- "$expected" "$folder/responses" || { echo "missing: $expected"; return 1; }
  done
}

free_of_secrets() {
  local word text=$folder/text
  cat >"$text"
  [[ -s $text ]] || { echo "the text is empty"; return 1; }
  for word in $(for file in .secrets/*; do secret_of "$file"; done); do
    ! grep -qF -- "$word" "$text" || { echo "the text contains a secret"; return 1; }
  done
}
secret_of() {
  case $1 in
    */*_password | */jwt_secret_key) cat "$1" && echo ;;
    */valkey_auth) sed 's/requirepass //' "$1" && echo ;;
  esac
}
inspect_all() { containers | xargs docker inspect && docker image inspect "$CATALOG_IMAGE" && docker network inspect "${COMPOSE_PROJECT_NAME}_proxy"; }
no_secret_in_inspect() { inspect_all | free_of_secrets; }
no_secret_in_logs() { compose logs --no-color | free_of_secrets; }
no_secret_in_image() { { docker history --no-trunc "$CATALOG_IMAGE" && docker save "$CATALOG_IMAGE"; } | free_of_secrets; }
no_secret_in_processes() { containers | xargs -n 1 docker top | free_of_secrets; }
secrets_are_private() { [[ $(stat -c %a .secrets) == 700 && $(stat -c %a .env) == 600 ]]; }

containers_are_confined() {
  local id
  for id in $(containers); do
    docker inspect --format '{{.Name}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.CapAdd}}' "$id" |
      grep -E ' true \[ALL\] \[no-new-privileges:true\] \[\]$' || return 1
    # The kernel's view of the process itself.
    docker exec "$id" sh -c 'grep -hE "^(Uid|CapEff|CapPrm|CapBnd|NoNewPrivs)" /proc/1/status; ! touch /here 2>/dev/null' |
      tee "$folder/status" || return 1
    [[ $(grep -cE '^Cap.*\s0{16}$|^NoNewPrivs:\s1$' "$folder/status") == 4 ]] || return 1
    ! grep -qE '^Uid:\s0\s' "$folder/status" || return 1
  done
}
runs_supervisor() { [[ $(in_app sh -c 'tr "\0" " " </proc/1/cmdline') == *catalog\ serve* ]]; }
all_healthy() {
  for _ in {1..30}; do
    [[ $(containers | xargs docker inspect --format '{{.State.Health.Status}}' | sort -u) != healthy ]] || return 0
    sleep 1
  done
  return 1
}
has_no_build_tools() { in_app python -c '
import importlib.util, shutil, sys
found = [name for name in ("pip", "setuptools", "wheel") if importlib.util.find_spec(name)]
found += [name for name in ("pip", "pip3", "gcc", "cc", "make") if shutil.which(name)]
sys.exit(", ".join(found) or None)'; }
has_bytecode() { in_app python -c '
import pathlib, sys, catalog.app
missing = [
    name for name, module in sys.modules.items()
    if (cached := getattr(module, "__cached__", None)) and not pathlib.Path(cached).exists()
]
sys.exit(", ".join(missing) or None)'; }
ignores_forwarded_header() {
  curl --silent --output /dev/null --header 'X-Forwarded-For: 203.0.113.9' --header 'X-Request-ID: smoke-forwarded' "$api/nowhere"
  sleep 1
  compose logs --no-log-prefix app | grep '"smoke-forwarded"' | tee "$folder/line"
  grep -q '"client":"[0-9.]*"' "$folder/line" && ! grep -q 203.0.113.9 "$folder/line" &&
    ! grep -q "\"client\":\"${CATALOG_PROXY_NETWORK%.*}" "$folder/line"
}
limits_are_in_valkey() { compose exec -T valkey sh -c 'valkey-cli --no-auth-warning -a "$(sed "s/requirepass //" /run/secrets/valkey_auth)" keys "catalog-limits:*"' | grep -q catalog-limits; }
mysql_is_durable() { [[ $(sql 'SELECT CONCAT_WS(" ", @@innodb_flush_log_at_trx_commit, @@sync_binlog, @@character_set_server, @@innodb_buffer_pool_size)') == "1 1 utf8mb4 $((128 << 20))" ]]; }
sql() { compose exec -T mysql bash -c 'MYSQL_PWD=$(cat /run/secrets/mysql_password) mysql -N -h127.0.0.1 -u"$(cat /run/secrets/mysql_user)" "$(cat /run/secrets/mysql_database)" -e "$0"' "$1" 2>/dev/null; }
has_one_admin() { [[ $(sql "SELECT COUNT(*) FROM users WHERE role = 'admin'") == 1 ]]; }
unreachable() { # FROM HOST PORT: from another container
  not docker compose exec -T "$1" bash -c "timeout 2 bash -c '</dev/tcp/$2/$3'"
}
# Debian's mirror is the outside host, if there is a network: nginx may reach it.
has_no_internet_access() {
  local outside
  outside=$(getent ahostsv4 deb.debian.org | awk 'NR == 1 {print $1}') || true
  compose exec -T nginx curl --silent --output /dev/null --max-time 5 "http://${outside:-deb.debian.org}" ||
    echo "inconclusive: there is no network"
  not in_app python -c 'import socket, sys; socket.create_connection((sys.argv[1], 80), 3)' "${outside:-deb.debian.org}"
}

sign_in() { curl --silent --max-time 10 "$api/api/auth/login" --header 'Content-Type: application/json' \
  --data "{\"username\": \"admin\", \"password\": \"$(cat .secrets/admin_password)\"}" | field access_token; }
create_product() {
  token=$(sign_in)
  curl --silent --max-time 10 "$api/api/products" --header "Authorization: Bearer $token" \
    --header 'Content-Type: application/json' --data '{"name": "Kept", "price": 1}' | tee "$folder/created"
  id=$(field id <"$folder/created") && [[ $id =~ ^[0-9]+$ ]]
}
product_exists() { curl --silent --max-time 10 "$api/api/products/$id" | grep -F '"name":"Kept"'; }

every_instance_serves() {
  local before number
  for _ in {1..200}; do curl --silent --output /dev/null "$api/api/products/$RANDOM"; done
  for number in 1 2 3 4; do
    before=$(docker logs "$(docker compose ps --quiet app | sed -n "${number}p")" 2>&1 | grep -c '"path":"/api/products/') || true
    echo "$number: $before" && ((before > 0)) || return 1
  done
}
# Starts Prometheus without replacing the instances.
prometheus_scrapes_all() {
  docker compose --profile monitoring up --detach --no-deps --wait prometheus &&
    "$tester" -m tests.monitoring.stack --service "$api" --prometheus "http://$CATALOG_PROMETHEUS_BIND" --instances 4 &&
    docker compose --profile monitoring rm --stop --force prometheus
}
up_replaces_no_container() {
  local before
  before=$(containers | sort)
  ./build.sh up && [[ $(containers | sort) == "$before" ]]
}
# Runs a command under load and prints a report of the requests.
clients() { "${PYTHON:-python3}" tests/deployment/clients.py --url "$api" --password-file .secrets/admin_password "$@"; }
replace_instances() {
  local before
  before=$(containers app | sort)
  # Another revision makes another image, so all containers are replaced.
  CATALOG_REVISION=another clients docker compose up --detach --no-deps --build app && [[ -z $(comm -12 <(echo "$before") <(containers app | sort)) ]]
}
print_report() { sed 's/^/      /' "$folder/output" | grep -E 'reads|longest|created|took'; }
publishes_only_nginx() {
  [[ $(containers | xargs docker inspect --format '{{range $port, $at := .HostConfig.PortBindings}}{{$port}} {{end}}' | tr -d '\n') == '80/tcp ' ]]
}
has_http2_and_hsts() {
  curl --silent --insecure --http2 --include --max-time 10 "https://127.0.0.1:$((port + 1))$1" | tr -d '\r' | tee "$folder/secure"
  head -n 1 "$folder/secure" | grep -q '^HTTP/2 ' && grep -qi '^strict-transport-security: max-age=' "$folder/secure"
}
ready_in_time() {
  local began=$SECONDS
  ./build.sh up && ready_seconds=$((SECONDS - began)) && ((ready_seconds <= ${SMOKE_COLD_SECONDS:-60}))
}

# --- checks -------------------------------------------------------------------------------------

check "the image builds" compose build app
check "the image writes the secrets" docker/stack.sh secrets
check "the image is at most $((budget / 1000000)) MB larger than its base" within_budget
echo "      $((size / 1000000)) MB over $base"
check "the stack is ready within a minute of its first start" ready_in_time
echo "      ready after $ready_seconds s"
check "all containers are healthy" all_healthy
check "the first requests get the documented responses" first_requests
check "nginx hides /metrics from clients" responds_with 404 "$api/metrics"
check "process 1 is the supervisor" runs_supervisor
check "containers have no capabilities and do not run as root" containers_are_confined
check "only nginx publishes a port" publishes_only_nginx
check "nginx cannot reach MySQL" unreachable nginx mysql 3306
check "the service cannot reach the internet" has_no_internet_access
check "the image has no build tools" has_no_build_tools
check "the image has bytecode of all modules" has_bytecode
check "a client cannot forge its address" ignores_forwarded_header
check "rate limits are counted in Valkey" limits_are_in_valkey
check "MySQL is durable and uses utf8mb4" mysql_is_durable
check "catalog check finds no fault" in_app catalog check
check "a product can be created" create_product
check "repeating up replaces no container" up_replaces_no_container
check "the service scales to four instances" ./build.sh up --scale app=4
check "every instance serves requests" every_instance_serves
if [[ -n ${SMOKE_WITHOUT_PROMETHEUS:-} ]]; then
  echo "NOT RUN: Prometheus in the stack, because SMOKE_WITHOUT_PROMETHEUS is set."
elif [[ -x $tester ]] && { docker image inspect "$prometheus" || docker pull "$prometheus"; } >/dev/null 2>&1; then
  check "Prometheus scrapes four instances and the dashboard has data" prometheus_scrapes_all
else
  echo "NOT RUN: Prometheus in the stack, because there is no .venv or no image $prometheus." >&2
fi
check "four instances create one administrator" has_one_admin
export CATALOG_INSTANCES=2
check "the service scales down to two instances" ./build.sh up
check "replacing both instances fails no request" replace_instances
print_report
check "reloading the workers fails no request" clients --requests 5000 docker compose kill --signal HUP app
print_report
check "reloading nginx fails no request" clients --requests 5000 docker compose exec -T nginx sh /opt/nginx/compose/start.sh reload
print_report
check "restarting MySQL fails requests with 503 only" clients --requests 5000 --allow-503 docker compose restart mysql
print_report
unset CATALOG_INSTANCES
check "down stops the stack" ./build.sh down --timeout 40
check "up starts the stack again" ./build.sh up
check "the product exists after down and up" product_exists
check "the load generator reports" compose run --rm load --seconds 3 --connections 8 --write
sed 's/^/      /' "$folder/output" | grep -E 'GET|POST|answers'
mkdir tls
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout tls/privkey.pem -out tls/fullchain.pem 2>/dev/null
chmod 644 tls/*
export CATALOG_TLS=$folder/tls
check "the stack starts with a certificate" ./build.sh up
check "a cached page has HTTP/2 and HSTS" has_http2_and_hsts /api/products
check "a response of the service has HTTP/2 and HSTS" has_http2_and_hsts /api/auth/me
check "an error response of nginx has HTTP/2 and HSTS" has_http2_and_hsts /metrics
check "a response without TLS has no HSTS" not grep -qi strict-transport <(curl --silent --head "$api/livez")
check "a running nginx reloads its certificate" compose exec -T nginx sh /opt/nginx/compose/start.sh reload
check "only the owner can read the secrets" secrets_are_private
check "the search finds a secret in .env" not free_of_secrets < <(cat .env)
check "docker inspect shows no secret" no_secret_in_inspect
check "logs contain no secret" no_secret_in_logs
check "process lists contain no secret" no_secret_in_processes
check "the image contains no secret" no_secret_in_image
check "down --volumes stops the stack" ./build.sh down --volumes
check "down --volumes removes all volumes" test -z "$(docker volume ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")"
echo "$passed passed, $failed failed after $SECONDS s."
((failed == 0))
