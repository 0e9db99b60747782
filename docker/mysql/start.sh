#!/usr/bin/env bash
# Starts MySQL through its image's entry point. The image takes any non-empty folder for a database,
# so an interrupted first start would leave a partial one for good. While the mark exists, the
# server has not accepted connections from outside yet, so deleting the folder loses no data.
set -euo pipefail
folder=/var/lib/mysql
mark=$folder/.first-start

if [[ -e $mark ]]; then
  echo "The first start was interrupted; starting again with an empty folder." >&2
  find "$folder" -mindepth 1 -delete
fi
[[ -d $folder/mysql ]] || touch "$mark"
exec docker-entrypoint.sh "$@"
