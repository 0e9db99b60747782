#!/usr/bin/env bash
# Sets up a fresh Debian or Ubuntu server that serves http://<host>/api on port 80: as cloud-init
# user data, or by hand as root. It is idempotent, also after an interruption: what exists is kept,
# .env and the data above all.
#
# As user data it requires REPOSITORY; run from a clone, it uses that clone.
set -euo pipefail
repository=${REPOSITORY:-}
branch=${BRANCH:-main}
folder=${FOLDER:-/opt/catalog}

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'user-data.sh: %s\n' "$*" >&2
  exit 1
}

# In a server's first minutes other programs hold apt's lock.
install_git() {
  export DEBIAN_FRONTEND=noninteractive
  for _ in {1..30}; do
    if apt-get -q update >/dev/null &&
      apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends git ca-certificates >/dev/null; then
      return
    fi
    sleep 10
  done
  die "could not install git."
}

fetch() {
  [[ -n $repository ]] || die "REPOSITORY must name the git repository; set it at the top."
  command -v git >/dev/null || install_git
  say "Fetching $repository into $folder"
  # Atomic: a partial clone never gets the final name.
  rm -rf "$folder.new"
  git clone --quiet --depth 1 --branch "$branch" "$repository" "$folder.new"
  mv -T "$folder.new" "$folder"
}

[[ $EUID -eq 0 ]] || die "must be run as root."
# cloud-init does not set HOME.
export HOME=${HOME:-/root}

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -f $here/docker-compose.yml && -x $here/build.sh ]]; then
  folder=$here
fi
# Serializes a run by hand and that of cloud-init.
exec 9>/run/lock/catalog-user-data.lock
flock 9

[[ -x $folder/build.sh ]] || fetch
cd "$folder"
# A value in .env takes precedence.
grep -qsE '^[[:space:]]*CATALOG_HTTP_BIND[[:space:]]*=' .env || export CATALOG_HTTP_BIND=0.0.0.0:80
# Docker restarts the containers after a reboot.
./build.sh up 9>&-
