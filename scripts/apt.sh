# Programs that the distribution packages. To be sourced by setup.sh.
# shellcheck shell=bash

# need COMMAND PACKAGE: plans PACKAGE where COMMAND is missing.
need() {
  have "$1" || [[ " ${apt_packages[*]} " == *" $2 "* ]] || apt_packages+=("$2")
}

install_apt_packages() {
  have apt-get || fail "missing: ${apt_packages[*]} (Debian's names), and this system has no apt-get" \
    "install them with your package manager, then run the same command again"
  local -a install=(env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${apt_packages[@]}")
  # The lists may be recent enough; a new machine has none.
  if ! as_root "${install[@]}"; then
    say "refreshing apt's lists, then trying again"
    as_root apt-get update --quiet &&
      as_root "${install[@]}" ||
      fail "apt-get could not install ${apt_packages[*]}" \
        "read its message above: often the mirror is unreachable, or another apt holds the lock"
  fi
}
