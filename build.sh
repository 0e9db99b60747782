#!/usr/bin/env bash
# Sets up, runs and checks the service; CI runs the same commands. See: ./build.sh help
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

usage() {
  cat <<'EOF'
Usage: ./build.sh <command> [arguments]

  setup    create .venv with the locked dependencies and the service
  run      set up, then serve on http://127.0.0.1:8000 with SQLite under var/, or as
           .env and the environment say; arguments go to `catalog serve`: --port 8001
  test     set up, then run the tests on SQLite, on MariaDB and, if
           CATALOG_TEST_MYSQL_URL is set, on MySQL, with a Redis of their own, in three
           processes for two cores; arguments go to pytest:
           ./build.sh test --engine sqlite -k products
  coverage run the tests in the same way, then print the lines of each module that
           they have not entered: ./build.sh coverage --engine sqlite tests/auth
  faults   set up, then run the fault suite: failing databases and processes, hostile
           clients and input; some 7 minutes, or up to 2 hours with --full;
           other arguments go to pytest: ./build.sh faults -k database
  clients  set up, then let generators make clients of the OpenAPI document in Python and
           TypeScript, and a Postman collection, and use them with the service; a minute
  mutants  set up, then put small faults into the code and see whether the tests notice
           them; ./build.sh mutants --modules catalog/auth; see ./build.sh mutants --help
  bench    set up, then measure the service against its peers, which get a virtual
           environment of their own, on a MySQL or MariaDB of its own or on a given one:
           ./build.sh bench --url mysql://… --workload hot --peer litestar --write;
           with --profile, it draws what a worker of the service does instead;
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

case ${1:-help} in
  setup) exec docker/venv.sh service ;;
  run) exec docker/run.sh "${@:2}" ;;
  test | coverage | faults | clients | mutants) exec tests/run.sh "$@" ;;
  bench) exec tests/load/bench.sh "${@:2}" ;;
  up | down | logs) exec docker/stack.sh "$@" ;;
  secrets) docker/venv.sh service && exec "${VENV:-.venv}/bin/catalog" secrets ;;
  lint) exec tests/lint.sh ;;
  format) exec tests/format.sh ;;
  lock) exec docker/lock.sh "${@:2}" ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
