#!/usr/bin/env bash
# Makes a fresh Debian or Ubuntu server serve http://<host>/api on port 80: as user data of
# cloud-init, or by hand as root. It may be run again at any time, also after it was interrupted:
# what is there stays, above all .env and the data.
#
# As user data it needs to be told where the code is; run from a clone, it takes that one.
set -euo pipefail
repository=${REPOSITORY:-}
branch=${BRANCH:-main}
folder=${FOLDER:-/opt/catalog}

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'user-data.sh: %s\n' "$*" >&2
  exit 1
}

# Other programs use apt-get in a server's first minutes.
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
  # Whole or not at all.
  rm -rf "$folder.new"
  git clone --quiet --depth 1 --branch "$branch" "$repository" "$folder.new"
  mv -T "$folder.new" "$folder"
}

[[ $EUID -eq 0 ]] || die "must be run as root."
# cloud-init leaves it empty.
export HOME=${HOME:-/root}

here=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -f $here/docker-compose.yml && -x $here/build.sh ]]; then
  folder=$here
fi
# One at a time: a person may not want to wait for cloud-init.
exec 9>/run/lock/catalog-user-data.lock
flock 9

[[ -x $folder/build.sh ]] || fetch
cd "$folder"
# What .env says stands.
grep -qsE '^[[:space:]]*CATALOG_HTTP_BIND[[:space:]]*=' .env || export CATALOG_HTTP_BIND=0.0.0.0:80
# The containers start again by themselves with the machine, in the same way.
./build.sh up 9>&-
