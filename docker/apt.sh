# Installation of Debian's and Ubuntu's packages; sourced, after messages.sh.
# shellcheck shell=bash

# In a server's first minutes other programs hold apt's lock.
lock_timeout=(-o DPkg::Lock::Timeout=300)

# Fails where the user is not root or there is no apt.
apt_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null || return 1
  say "Installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get "${lock_timeout[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  # The usual cause: package lists that are outdated, or missing as in container images.
  apt_update && quietly apt-get "${lock_timeout[@]}" install -y --no-install-recommends "$@"
}

apt_update() {
  local output
  for _ in {1..60}; do
    output=$(apt-get update 2>&1) && return
    [[ $output == *'Could not get lock'* ]] || break
    sleep 5
  done
  tail -n 20 <<<"$output" >&2
  return 1
}
