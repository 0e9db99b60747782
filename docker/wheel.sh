#!/usr/bin/env bash
# Builds the wheels and source archives of a release, service and client, and checks them: wheel.sh FOLDER [TAG]
#
# TAG, if given, must be the version with a v in front.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh

folder=${1:?usage: wheel.sh FOLDER [TAG]}
docker/venv.sh tools
python=${VENV:-.venv}/bin/python
version=$("$python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
[[ -z ${2:-} || $2 == "v$version" ]] || die "the tag $2 is not v$version, the version in pyproject.toml."

# From a copy of what is committed, so that no file beside it slips in.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar -x -C "$copy"
mkdir -p "$folder"
say "Building catalog and catalog-client $version"
for source in "$copy" "$copy/catalog/client"; do
  quietly "${VENV:-.venv}/bin/uv" build --no-build-isolation --python "$python" --out-dir "$folder" "$source" ||
    die "the build failed."
done
wheel=$folder/catalog-$version-py3-none-any.whl
for each in "$wheel" "$folder/catalog_client-$version-py3-none-any.whl"; do
  [[ -f $each ]] || die "$each was not built."
done

# A wheel without a file that is not Python code would start, and fail later.
files_of() { "$python" -m zipfile -l "$1" | awk 'NR > 1 {print $1}' | sort; }
missing=$(comm -23 <(git ls-files catalog ':!:catalog/client/pyproject.toml' | sort) <(files_of "$wheel"))
[[ -z $missing ]] || die "the wheel lacks: $missing"
say "Built, with every file of the package: $wheel"
