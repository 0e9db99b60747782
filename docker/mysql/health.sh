#!/usr/bin/env bash
# Whether MySQL lets the service in. By TCP: while the first start is under way, it only has a socket.
set -euo pipefail
secret() { cat "/run/secrets/$1"; }

user=$(secret mysql_user)
password=$(secret mysql_password)
# An existing .env may name root.
[[ -n $user ]] || { user=root && password=$(secret mysql_root_password); }
# Not as an argument, which others in the container could read.
MYSQL_PWD=$password exec mysql --protocol=tcp --host=127.0.0.1 --user="$user" --connect-timeout=3 \
  --execute='SELECT 1' "$(secret mysql_database)" >/dev/null
