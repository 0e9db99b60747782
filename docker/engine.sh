#!/usr/bin/env bash
# Checks that Docker and its Compose plugin respond. As root on Debian and Ubuntu it installs and
# starts them if they do not; elsewhere it reports what is missing.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=docker/messages.sh
. docker/messages.sh
# shellcheck source=docker/apt.sh
. docker/apt.sh

start_docker() {
  if [[ $EUID -ne 0 ]]; then
    docker info 2>&1 | tail -n 1 >&2
    die "Docker does not respond. Is it running, and are you root or in the group docker?"
  fi
  say "Starting Docker"
  if [[ -d /run/systemd/system ]]; then
    quietly systemctl enable --now docker
  else
    quietly service docker start
  fi || die "Docker does not start."
  for _ in {1..60}; do
    docker info >/dev/null 2>&1 && return
    sleep 0.5
  done
  docker info 2>&1 | tail -n 5 >&2
  die "Docker does not respond."
}

# Prefers the distribution's packages, which are updated with it. The Compose plugin is
# docker-compose-v2 in Ubuntu and docker-compose in Debian 13. In Debian 12 the latter is Compose
# v1, which cannot read this stack, so Docker's own packages are installed there.
install_docker() {
  local engine=() plugin=()
  [[ $EUID -eq 0 ]] || die "Docker or its Compose plugin is missing; install it, or run this as root."
  command -v apt-get >/dev/null || die "Docker with its Compose plugin is missing; install it first."
  apt_update || die "could not update the package lists. Is there a network?"
  if package_available docker-compose-v2; then
    plugin=(docker-compose-v2)
  elif package_available docker-compose 2; then
    plugin=(docker-compose)
  else
    add_dockers_packages
    engine=(docker-ce docker-ce-cli containerd.io)
    plugin=(docker-compose-plugin docker-buildx-plugin)
  fi
  if [[ ${#engine[@]} -eq 0 ]]; then
    engine=(docker.io iptables ca-certificates)
    # Part of docker.io in older releases.
    ! package_available docker-cli || engine+=(docker-cli)
    ! package_available docker-buildx || plugin+=(docker-buildx)
  fi
  # Keeps an installed engine.
  ! command -v dockerd >/dev/null || engine=()
  apt_install "${engine[@]}" "${plugin[@]}" || die "could not install Docker."
  docker compose version >/dev/null 2>&1 || die "Docker is installed, but its Compose plugin is not."
}

# Whether a package is available in this major version or newer.
package_available() {
  local version
  version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: \([0-9]*:\)\?//p')
  [[ -n $version && $version != '(none)' && ${version%%.*} -ge ${2:-0} ]]
}

add_dockers_packages() {
  local id codename
  # shellcheck disable=SC1091
  read -r id codename < <(. /etc/os-release && echo "$ID ${VERSION_CODENAME:-}")
  [[ $id == debian || $id == ubuntu ]] || die "Docker can be installed on Debian and Ubuntu only; install it first."
  apt_install ca-certificates curl || die "could not install curl."
  say "Adding Docker's packages for $id $codename"
  install -d -m 0755 /etc/apt/keyrings
  quietly curl --fail --silent --show-error --location --output /etc/apt/keyrings/docker.asc \
    "https://download.docker.com/linux/$id/gpg" || die "could not fetch the key of Docker's packages."
  echo "deb [arch=$(dpkg --print-architecture) signed-by=/etc/apt/keyrings/docker.asc]" \
    "https://download.docker.com/linux/$id $codename stable" >/etc/apt/sources.list.d/docker.list
  apt_update || die "could not update the list of Docker's packages."
}

docker compose version >/dev/null 2>&1 || install_docker
docker info >/dev/null 2>&1 || start_docker
