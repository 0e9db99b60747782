#!/usr/bin/env bash
# Extracts prometheus and promtool from Debian's packages into a folder. Installing the packages
# would start Prometheus.
#
#   fetch_prometheus.sh FOLDER      then CATALOG_TEST_PROMETHEUS=FOLDER/prometheus
set -euo pipefail
folder=$(realpath -m "$1")
[[ -x $folder/prometheus ]] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# promtool is a package of its own in newer releases of Debian, else part of prometheus.
fetch() { apt-get download -q prometheus && { apt-get download -q promtool || true; }; }
# Package lists may be outdated, or missing as in container images.
fetch >/dev/null 2>&1 || { apt-get update -q && fetch; } >/dev/null
for package in ./*.deb; do
  dpkg -x "$package" root
done
mkdir -p "$folder"
cp root/usr/bin/promtool "$folder/"
# Copied last, because its presence marks the folder as complete.
cp root/usr/bin/prometheus "$folder/"
