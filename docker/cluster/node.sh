#!/usr/bin/env bash
# Starts one node of the cluster: founds it, joins it, or takes it up where it was left.
#
#   node.sh             start
#   node.sh position    tell how far this node has got, which must not be running
#   node.sh found       let this node found the cluster anew at its next start, from its data, when
#                       all are down and none begins; docs/scaling.md tells when
#
# CLUSTER_NODES   names of all nodes, separated by commas; the first one founds the cluster
# CLUSTER_NODE    this node's name
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
  local password sql new=$data/.new
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
  # Elsewhere first: half a database would look like one. It leaves root and mysql to those of that
  # name on this machine, who come by the socket; what is set for a node does not concern it yet.
  rm -rf "$new"
  mariadb-install-db --no-defaults --datadir="$new" --auth-root-authentication-method=socket \
    --auth-root-socket-user=mysql --skip-test-db --extra-file="$sql" >/dev/null
  mv "$new"/* "$data"
  rm -rf "$new" "$sql"
}

state=$data/grastate.dat
case ${1:-} in
  position)
    position
    exit
    ;;
  found)
    sed -i 's/^safe_to_bootstrap:.*/safe_to_bootstrap: 1/' "$state"
    exit
    ;;
esac

options=()
if a_peer_serves; then
  say "Joining the others"
elif [[ ! -d $data/mysql && $CLUSTER_NODE == "${CLUSTER_NODES%%,*}" ]]; then
  say "Making the database and founding the cluster"
  make_database
  options+=(--wsrep-new-cluster)
elif grep -qs '^safe_to_bootstrap: 1' "$state"; then
  say "Founding the cluster again: this node was the last to leave, or is told to"
  options+=(--wsrep-new-cluster)
else
  say "Looking for the others"
fi
if [[ -d $data/mysql ]]; then
  options+=(--wsrep-start-position="$(position)")
fi
exec mariadbd "${common[@]}" "${options[@]}"
