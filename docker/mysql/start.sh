#!/usr/bin/env bash
# Starts MySQL as its image does. The image takes a folder in which something is for a database, so
# a first start that was interrupted would leave half of one for good. While the mark is there the
# server has not been open to anybody, so that nothing can be lost.
set -euo pipefail
folder=/var/lib/mysql
mark=$folder/.first-start

if [[ -e $mark ]]; then
  echo "The first start was interrupted, so it begins anew." >&2
  find "$folder" -mindepth 1 -delete
fi
[[ -d $folder/mysql ]] || touch "$mark"
exec docker-entrypoint.sh "$@"
