#!/usr/bin/env bash
# Builds the documentation as a site, and fails at any broken link: build.sh [FOLDER]
#
# CATALOG_REPOSITORY_URL is where links to files outside the documentation lead.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

target=$(realpath -m -- "${1:-var/site}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp docs/site/mkdocs.yml "$work"
mkdir "$work/pages"
cp -r docs/*.md docs/*.png docs/adr docs/deployment docs/performance "$work/pages"
[[ ! -d docs/images ]] || cp -r docs/images "$work/pages"
python=$(realpath -s -- "${VENV:-.venv}/bin/python")
"$python" docs/site/links.py "$work/pages" "${CATALOG_REPOSITORY_URL:-https://example.org/catalog}"
cd -- "$work"
"$python" -m zensical build --strict --config-file mkdocs.yml
rm -rf "$target"
mkdir -p "$(dirname -- "$target")"
mv site "$target"
echo "The site is in $target."
