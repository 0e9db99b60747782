#!/bin/sh
# Starts nginx in its container. `start.sh reload` takes a changed configuration or certificate over
# into the running one, without a failed request.
#
# The configuration is the one for bare metal with other listen.conf and upstream.conf, and with TLS
# if there is a certificate. It is put together where nginx can read it and nobody else writes.
set -eu
from=/opt/nginx
to=/tmp/nginx
tls=/etc/nginx/tls

mkdir -p "$to/catalog"
# As many files as the container may have.
# shellcheck disable=SC3045  # Not in POSIX, but in the shell of every image.
sed "s/^worker_rlimit_nofile .*/worker_rlimit_nofile $(ulimit -H -n);/" "$from/nginx.conf" >"$to/nginx.conf"
cp "$from"/catalog/* "$to/catalog/"
cp "$from"/compose/*.conf "$to/catalog/"
# Not every platform lets /run be written to.
sed -i "s|^pid .*|pid $to/nginx.pid;|" "$to/nginx.conf"
if [ -e "$tls/fullchain.pem" ]; then
  for file in fullchain.pem privkey.pem; do
    if ! [ -r "$tls/$file" ]; then
      echo "start.sh: $tls/$file cannot be read by user $(id -u)" >&2
      exit 1
    fi
  done
  echo "include catalog/tls.conf;" >>"$to/catalog/listen.conf"
fi

nginx -c "$to/nginx.conf" -t -q
if [ "${1:-}" = reload ]; then
  exec nginx -c "$to/nginx.conf" -s reload
fi
exec nginx -c "$to/nginx.conf" -g 'daemon off;'
