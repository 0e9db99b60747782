# Programs that tests and benchmarks use; sourced, after docker/messages.sh and docker/apt.sh. Where
# one cannot be installed, its tests are skipped with a message.
# shellcheck shell=bash

# MariaDB's core packages have the programs without a service, so nothing is started or enabled.
want_mariadb() {
  PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null && return
  apt_install mariadb-server-core mariadb-client-core || say "Continuing without MariaDB"
}

# redis-tools has the server too, under another name; the package redis-server starts a service.
want_redis() {
  local name
  for name in redis-server valkey-server redis-check-rdb; do
    PATH=$PATH:/usr/sbin command -v "$name" >/dev/null && return
  done
  apt_install redis-tools || say "Continuing without Redis"
}

# An nginx with the module that the cache requires.
want_nginx() {
  local folder=${VENV:-.venv}/nginx
  [[ -z ${CATALOG_TEST_NGINX:-} ]] || return 0
  [[ -x $folder/nginx ]] || say "Fetching nginx"
  if quietly tests/server/fetch_nginx.sh "$folder"; then
    CATALOG_TEST_NGINX=$(realpath "$folder/nginx")
    export CATALOG_TEST_NGINX
  else
    say "Continuing without nginx's cache"
  fi
}

# For the tests of rules, alerts and the dashboard.
want_prometheus() {
  local folder=${VENV:-.venv}/prometheus
  [[ -z ${CATALOG_TEST_PROMETHEUS:-} ]] || return 0
  [[ -x $folder/prometheus ]] || say "Fetching Prometheus"
  if quietly tests/monitoring/fetch_prometheus.sh "$folder"; then
    CATALOG_TEST_PROMETHEUS=$(realpath "$folder/prometheus")
    export CATALOG_TEST_PROMETHEUS
  else
    say "Continuing without Prometheus"
  fi
}

# For the tests of pages in a browser.
want_chromium() {
  # chromium-headless-shell takes a third of the CPU time of chromium, and only Debian has it.
  command -v chromium-headless-shell >/dev/null || apt_install chromium-headless-shell ||
    command -v chromium >/dev/null || apt_install chromium || say "Continuing without Chromium"
}

# Required by the benchmark.
need_clients() {
  command -v wrk >/dev/null && command -v h2load >/dev/null && return
  apt_install wrk nghttp2-client || die "wrk and h2load make the load; install them."
}
