#!/usr/bin/env bash
# Starts one node: bootstraps the cluster, joins it, or rejoins it with existing data.
#
#   node.sh             start the node
#   node.sh position    print this node's replication position; the node must be stopped
#   node.sh found       mark this node to bootstrap the cluster from its data at its next start, if
#                       all nodes are down and none bootstraps; see docs/scaling.md
#
# CLUSTER_NODES   names of all nodes, separated by commas; the first one bootstraps the cluster
# CLUSTER_NODE    this node's name
# CATALOG_DB_PASSWORD_FILE   password file of the service's user, read at the bootstrap
set -euo pipefail

data=/var/lib/mysql
common=(--datadir="$data" --socket=/run/mysqld/mysqld.sock)
common+=(--wsrep-node-name="$CLUSTER_NODE" --wsrep-cluster-address="gcomm://$CLUSTER_NODES")

say() { printf '==> %s\n' "$*"; }

# A node listens for SQL only once it has joined a working cluster.
peer_is_serving() {
  local name
  for name in ${CLUSTER_NODES//,/ }; do
    [[ $name != "$CLUSTER_NODE" ]] || continue
    timeout 1 bash -c "</dev/tcp/$name/3306" 2>/dev/null && return
  done
  return 1
}

# From the data itself, because grastate.dat has no position after a kill.
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
  # In another folder first, because a partial database would look like a complete one. root and
  # mysql log in through the socket as the system users of that name. --no-defaults: the
  # configuration of a node does not apply yet.
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
if peer_is_serving; then
  say "Joining the cluster"
elif [[ ! -d $data/mysql && $CLUSTER_NODE == "${CLUSTER_NODES%%,*}" ]]; then
  say "Creating the database and bootstrapping the cluster"
  make_database
  options+=(--wsrep-new-cluster)
elif grep -qs '^safe_to_bootstrap: 1' "$state"; then
  say "Bootstrapping the cluster again: grastate.dat marks this node as safe to bootstrap"
  options+=(--wsrep-new-cluster)
else
  say "Waiting for a node that serves"
fi
if [[ -d $data/mysql ]]; then
  options+=(--wsrep-start-position="$(position)")
fi
exec mariadbd "${common[@]}" "${options[@]}"
