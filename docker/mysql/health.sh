#!/usr/bin/env bash
# Health check: whether the service's user can log in. By TCP, because during the first start MySQL
# listens on its socket only.
set -euo pipefail
secret() { cat "/run/secrets/$1"; }

user=$(secret mysql_user)
password=$(secret mysql_password)
# .env may name root as the user.
[[ -n $user ]] || { user=root && password=$(secret mysql_root_password); }
# Not as an argument, which other processes in the container could read.
MYSQL_PWD=$password exec mysql --protocol=tcp --host=127.0.0.1 --user="$user" --connect-timeout=3 \
  --execute='SELECT 1' "$(secret mysql_database)" >/dev/null
