#!/usr/bin/env bash
# Puts prometheus and promtool into a folder, from Debian's packages and without installing them:
# installed, Prometheus would be started.
#
#   fetch_prometheus.sh FOLDER      then CATALOG_TEST_PROMETHEUS=FOLDER/prometheus
set -euo pipefail
folder=$(realpath -m "$1")
[[ -x $folder/prometheus ]] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# A package of its own in newer releases of Debian, else it is in the other one.
fetch() { apt-get download -q prometheus && { apt-get download -q promtool || true; }; }
# The package lists may be old, or missing as in container images.
fetch >/dev/null 2>&1 || { apt-get update -q && fetch; } >/dev/null
for package in ./*.deb; do
  dpkg -x "$package" root
done
mkdir -p "$folder"
cp root/usr/bin/promtool "$folder/"
# Last, as it tells that all is there.
cp root/usr/bin/prometheus "$folder/"
