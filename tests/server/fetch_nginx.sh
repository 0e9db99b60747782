#!/usr/bin/env bash
# Puts nginx and its njs module into a folder, from Debian's packages and without installing them:
# installed, nginx would be started, and the module of Debian 12 is older than the cache needs.
#
#   fetch_nginx.sh FOLDER      then CATALOG_TEST_NGINX=FOLDER/nginx
set -euo pipefail
suite=trixie
folder=$(realpath -m "$1")
[[ -x $folder/nginx ]] && exit
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
  grep -oE '^(deb|URIs:) .*' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ') || true
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -n $mirror && -f $keys ]] || {
  echo "fetch_nginx.sh: this is not Debian, or it has no sources of packages." >&2
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,cache}/partial "$work/packages"
echo "deb [signed-by=$keys] $mirror $suite main" >"$work/sources.list"
touch "$work/status"
apt=(-q -o "Dir::State::Lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
apt-get "${apt[@]}" update >/dev/null
wanted=$(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances --no-pre-depends nginx libnginx-mod-http-js |
  grep -E '^(nginx|zlib1g|lib[a-z0-9.+-]+)$' | grep -vE 'perl|debconf' | sort -u)
# Names without colons or brackets are packages and not alternatives.
(cd "$work/packages" && xargs apt-get "${apt[@]}" download <<<"$wanted" >/dev/null)
root=$folder/root
mkdir -p "$root"
for package in "$work"/packages/*.deb; do
  dpkg -x "$package" "$root"
done

libraries=$(dirname "$(find "$root" -name 'ld-linux-*.so.*' -path '*lib/*-linux-gnu/*' | head -n 1)")
loader=$(find "$libraries" -name 'ld-linux-*.so.*')
ln -sfn "$root/usr/lib/nginx/modules" "$folder/modules"
cat >"$folder/nginx" <<SH
#!/bin/sh
exec "$loader" --argv0 nginx --library-path "$libraries" "$root/usr/sbin/nginx" "\$@"
SH
chmod +x "$folder/nginx"
"$folder/nginx" -v
