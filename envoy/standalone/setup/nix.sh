# Nix: any that is on PATH, and a store that this user can write to. To be sourced.
# shellcheck shell=bash

nix_daemon_runs() { [[ -S ${NIX_DAEMON_SOCKET_PATH:-/nix/var/nix/daemon-socket/socket} ]]; }

# Without a daemon, Nix works for the one user who owns /nix.
nix_store_is_ours() { nix_daemon_runs || [[ $EUID -eq 0 || -w /nix ]]; }

make_nix_store() {
  [[ ! -e /nix ]] || fail "/nix belongs to $(stat --format=%U /nix), and no Nix daemon runs" \
    "start nix-daemon, or run as that user, or give the folder away: sudo chown -R $(id -un) /nix"
  as_root install -d -o "$(id -un)" /nix
}

# The options that the builder gives Nix on this machine, as NIXGATE_NIX_OPTIONS wants them.
# embedded_set: whether it serves the Debian set, whose builders use the host's /bin and /usr and
# whose packages no binary cache knows.
nix_options() {
  local embedded_set=$1 folder folders=() options=()
  # Nix as root wants a group of build users unless told that there is none.
  if [[ $EUID -eq 0 ]] && ! getent group nixbld >/dev/null; then
    options+=("build-users-group=")
  fi
  if [[ $embedded_set == true ]]; then
    for folder in /bin /usr /lib /lib64; do
      [[ ! -e $folder ]] || folders+=("$folder")
    done
    options+=("substituters=" "sandbox-paths=${folders[*]}")
  fi
  local IFS=';'
  printf '%s\n' "${options[*]}"
}

# Whether Nix can build in a sandbox on this machine: the builder refuses to start where it can't,
# and tells more about it. In some containers the kernel allows no namespaces.
sandbox_works() {
  local options=()
  [[ $EUID -ne 0 ]] || getent group nixbld >/dev/null || options+=(--option build-users-group "")
  # What was built once is not built again: each time it is another one.
  nix-build --no-out-link --option substitute false --option sandbox true --option sandbox-fallback false \
    "${options[@]}" "$ROOT/nix/sandbox.nix" --argstr unique "$$-$(date +%s%N)" >/dev/null 2>&1
}
