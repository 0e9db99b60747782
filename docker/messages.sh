# Messages of ./build.sh and its scripts, which source this file.
# shellcheck shell=bash

say() { printf '==> %s\n' "$*"; }

die() {
  printf 'build.sh: %s\n' "$*" >&2
  exit 1
}

# Prints a command's output only if it fails, without pip's warnings about retries.
quietly() {
  local output
  output=$("$@" 2>&1) && return
  grep -v '^WARNING: ' <<<"$output" | tail -n 20 >&2
  return 1
}
