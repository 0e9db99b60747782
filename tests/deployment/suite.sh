#!/usr/bin/env bash
# Runs tests inside the image: on its interpreter, with its packages, as its user, on a read-only
# root. Requires a Docker engine; without one it says so and exits with 77. Arguments go to pytest:
#
#   tests/deployment/suite.sh --engine sqlite tests/products
#
# IMAGE names the image; if unset, one is built.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

if ! docker info >/dev/null 2>&1; then
  echo "NOT RUN: there is no Docker engine, so no test runs inside the image." >&2
  exit 77
fi
if [[ -z ${IMAGE:-} ]]; then
  IMAGE=catalog-suite:latest
  docker build --quiet --file docker/Dockerfile --build-arg PIP_INDEX_URL --tag "$IMAGE" .
fi

# Everything except the service, which is in the image.
folder=$(mktemp -d)
volume=catalog-suite-tools-$$
trap 'rm -rf "$folder"; docker volume rm --force "$volume" >/dev/null' EXIT
git ls-files -z --cached --others --exclude-standard -- . ':!catalog' | xargs -0 cp --parents --target-directory "$folder"
chmod -R a+rX "$folder"

# Installed in the base image, because the service's image has no pip.
docker run --rm --env PIP_INDEX_URL --volume "$volume:/tools" --volume "$folder:/src:ro" python:3.13-slim \
  python -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-cache-dir \
  --require-hashes --target /tools --requirement /src/tests/requirements.lock

docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp:mode=1777,exec \
  --volume "$volume:/tools:ro" --volume "$folder:/src:ro" --env PYTHONPATH=/tools --env HOME=/tmp \
  --env CATALOG_ENV= --env CATALOG_BIND= --env PORT= --env CI --workdir /src --entrypoint python "$IMAGE" \
  -m pytest -p no:cacheprovider "$@"
