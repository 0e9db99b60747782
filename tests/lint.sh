#!/usr/bin/env bash
# Checks format, code, types, import directions, scripts, containers, documentation and workflows. All
# checks run, and it fails if one of them did.
set -uo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source=docker/messages.sh
. docker/messages.sh

bin=${VENV:-.venv}/bin
failed=0

check() { "$@" || failed=1; }
follows() { check "$bin/check-jsonschema" --builtin-schema "vendor.$1" "${@:2}"; } # SCHEMA FILES...

docker/venv.sh tools || exit
say "Format"
check "$bin/ruff" format --check .
say "Code"
check "$bin/ruff" check .
say "Types"
check "$bin/mypy"
say "Imports"
check "$bin/lint-imports" --no-logo
say "Scripts"
mapfile -d '' scripts < <(git ls-files -z '*.sh' .ci/run)
check "$bin/shellcheck" "${scripts[@]}"
say "Containers"
check "$bin/hadolint" docker/{,cluster/}Dockerfile
follows compose-spec docker-compose.yml docker/{secrets,tls,swarm,cluster/compose}.yml
say "Documentation"
site=$(mktemp -d)
check docs/site/build.sh "$site/site"
rm -rf "$site"
say "Workflows"
follows github-workflows .github/workflows/*.yml
follows dependabot .github/dependabot.yml
follows github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
follows github-issue-config .github/ISSUE_TEMPLATE/config.yml
exit "$failed"
