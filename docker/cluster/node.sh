#!/usr/bin/env bash
# Starts one node of the cluster: founds it, joins it, or takes it up where it was left.
#
#   node.sh             start
#   node.sh position    tell how far this node has got, which must not be running
#
# CLUSTER_NODES   names of all nodes, separated by commas; the first one founds the cluster
# CLUSTER_NODE    this node's name
# CLUSTER_FOUND   yes: found the cluster anew from this node's data, whatever it says (see
#                 docs/scaling.md before)
# CATALOG_DB_PASSWORD_FILE   holds the password of the service's user, read when the cluster is founded
set -euo pipefail

data=/var/lib/mysql
common=(--datadir="$data" --socket=/run/mysqld/mysqld.sock)
common+=(--wsrep-node-name="$CLUSTER_NODE" --wsrep-cluster-address="gcomm://$CLUSTER_NODES")

say() { printf '==> %s\n' "$*"; }

# A node listens for SQL when it is, or was, part of a cluster that works, and not before.
a_peer_serves() {
  local name
  for name in ${CLUSTER_NODES//,/ }; do
    [[ $name != "$CLUSTER_NODE" ]] || continue
    timeout 1 bash -c "</dev/tcp/$name/3306" 2>/dev/null && return
  done
  return 1
}

# From the data itself: after a kill the file beside it does not know.
position() {
  local log
  log=$(mktemp)
  mariadbd "${common[@]}" --wsrep-recover --skip-networking --log-error="$log" >/dev/null 2>&1 || true
  sed -n 's/.*Recovered position:* *//p' "$log" | tail -n 1
  rm -f "$log"
}

make_database() {
  local password sql
  password=$(<"$CATALOG_DB_PASSWORD_FILE")
  sql=$(mktemp)
  cat >"$sql" <<SQL
FLUSH PRIVILEGES;
CREATE DATABASE catalog CHARACTER SET utf8mb4;
CREATE USER 'catalog'@'%' IDENTIFIED BY '${password//\'/\'\'}';
GRANT SELECT, INSERT, UPDATE, DELETE ON catalog.* TO 'catalog'@'%';
GRANT CREATE, ALTER, DROP, INDEX, REFERENCES ON catalog.* TO 'catalog'@'%';
CREATE USER 'haproxy'@'%' WITH MAX_USER_CONNECTIONS 20;
SQL
  # It leaves root and mysql to those of that name on this machine, who come by the socket.
  mariadb-install-db --datadir="$data" --auth-root-authentication-method=socket \
    --auth-root-socket-user=mysql --skip-test-db --extra-file="$sql" >/dev/null
  rm -f "$sql"
}

if [[ ${1:-} == position ]]; then
  position
  exit
fi

options=()
state=$data/grastate.dat
if [[ ${CLUSTER_FOUND:-} == yes ]]; then
  say "Founding the cluster anew from here, as told"
  [[ ! -f $state ]] || sed -i 's/^safe_to_bootstrap:.*/safe_to_bootstrap: 1/' "$state"
  options+=(--wsrep-new-cluster)
elif a_peer_serves; then
  say "Joining the others"
elif [[ ! -d $data/mysql && $CLUSTER_NODE == "${CLUSTER_NODES%%,*}" ]]; then
  say "Making the database and founding the cluster"
  make_database
  options+=(--wsrep-new-cluster)
elif grep -qs '^safe_to_bootstrap: 1' "$state"; then
  say "Founding the cluster again: this node was the last to leave"
  options+=(--wsrep-new-cluster)
else
  say "Looking for the others"
fi
if [[ -d $data/mysql ]]; then
  options+=(--wsrep-start-position="$(position)")
fi
exec mariadbd "${common[@]}" "${options[@]}"
