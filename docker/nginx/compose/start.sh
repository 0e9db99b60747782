#!/bin/sh
# Starts nginx in its container. `start.sh reload` loads a changed configuration or certificate into
# the running nginx, without a failed request.
#
# The configuration is that of bare metal with another listen.conf, upstream.conf and site.conf, and
# with TLS if there is a certificate. It is assembled in a folder of its own.
set -eu
from=/opt/nginx
to=/tmp/nginx
tls=/etc/nginx/tls

mkdir -p "$to/catalog"
# nginx's limit on open files is that of the container.
# shellcheck disable=SC3045  # Not in POSIX, but in the shell of every image.
sed "s/^worker_rlimit_nofile .*/worker_rlimit_nofile $(ulimit -H -n);/" "$from/nginx.conf" >"$to/nginx.conf"
cp "$from"/catalog/* "$to/catalog/"
cp "$from"/compose/*.conf "$to/catalog/"
sh "$from/compose/site.sh" >"$to/catalog/site.conf"
# /run is not writable on every platform.
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
