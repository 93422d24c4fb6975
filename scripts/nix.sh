# Nix from PATH, a store that this user can write to, and build users. To be sourced.
# shellcheck shell=bash

# shellcheck source-path=SCRIPTDIR
. "$ROOT/scripts/modern-nix.sh"

# Nix as root runs each build as a user of its own, who owns nothing.
BUILD_GROUP=nixbld
BUILD_USERS=32
# `make uninstall` finds the build users by this comment.
BUILD_USER_COMMENT="nixgate build user"

nix_daemon_runs() { [[ -S ${NIX_DAEMON_SOCKET_PATH:-/nix/var/nix/daemon-socket/socket} ]]; }

# Without a daemon, Nix works for the one user who owns /nix.
nix_store_is_ours() { nix_daemon_runs || [[ $EUID -eq 0 || -w /nix ]]; }

make_nix_store() {
  [[ ! -e /nix ]] || fail "/nix belongs to $(stat --format=%U /nix), and no Nix daemon runs" \
    "start nix-daemon, or run as that user, or give the folder away: sudo chown -R $(id -un) /nix"
  as_root install -d -o "$(id -un)" /nix
}

# Whether builds may run as the owner of the store, so that they can change other packages.
build_user_is_shared() { [[ ${NIXGATE_ALLOW_SHARED_BUILD_USER:-} == true ]]; }

build_users_exist() { [[ -n $(getent group "$BUILD_GROUP" | cut -d: -f4) ]]; }

make_build_users() {
  local number name shell
  shell=$(command -v nologin || echo /bin/false)
  getent group "$BUILD_GROUP" >/dev/null || groupadd --system "$BUILD_GROUP" || no_build_users
  for ((number = 1; number <= BUILD_USERS; number++)); do
    name=$BUILD_GROUP$number
    getent passwd "$name" >/dev/null ||
      useradd --system --gid "$BUILD_GROUP" --groups "$BUILD_GROUP" --no-create-home --home-dir /var/empty \
        --shell "$shell" --comment "$BUILD_USER_COMMENT" "$name" || no_build_users
  done
}

no_build_users() {
  fail "cannot create the build users" \
    "read the message above; if you trust all packages, set NIXGATE_ALLOW_SHARED_BUILD_USER=true to build as root"
}

# Removes the build users, except those with running processes, and their group.
remove_build_users() {
  local name left=()
  for name in $(getent passwd | awk -F: -v comment="$BUILD_USER_COMMENT" '$5 == comment { print $1 }'); do
    as_root userdel "$name" || left+=("$name")
  done
  ((${#left[@]} == 0)) || {
    say "cannot remove the users ${left[*]} (see above): end their processes (ps -u <name> lists them), and run make uninstall again"
    return 0
  }
  # Users that somebody else made keep their group.
  build_users_exist || ! getent group "$BUILD_GROUP" >/dev/null || as_root groupdel "$BUILD_GROUP" ||
    say "cannot remove the group $BUILD_GROUP (see above)"
}

# The machine's folders that builds of the embedded set use: its builders are the machine's own tools.
machine_folders() {
  local folder
  for folder in /bin /usr /lib /lib64; do
    [[ ! -e $folder ]] || printf '%s\n' "$folder"
  done
}

# The options that the builder gives Nix on this machine, as NIXGATE_NIX_OPTIONS wants them.
# embedded_set: whether it serves the Debian set, which uses the host's /bin and /usr and has no binary
# cache.
nix_options() {
  local embedded_set=$1 folders shell options=()
  if [[ $EUID -eq 0 ]] && ! build_users_exist && build_user_is_shared; then
    # Nix as root requires a group of build users by default.
    options+=("build-users-group=")
  fi
  if [[ $embedded_set == true ]]; then
    mapfile -t folders < <(machine_folders)
    options+=("substituters=" "sandbox-paths=${folders[*]}")
  else
    shell=$(modern_nix_shell)
    [[ -z $shell ]] || options+=("$shell")
  fi
  local IFS=';'
  printf '%s\n' "${options[*]}"
}

# The machine's folders without links to each other.
real_folders() {
  local folder
  for folder in $(machine_folders); do
    [[ $(readlink --canonicalize "$folder") != "$folder" ]] || printf '%s\n' "$folder"
  done
}

# A wrapper command under which the builder and its builds see the machine's folders read-only; empty if
# that is not possible.
read_only_wrapper() {
  local folders folder
  mapfile -t folders < <(real_folders)
  for folder in "${folders[@]}"; do
    if [[ $STATE_DIR/ == "$folder"/* || ${STORAGE_PATH:-}/ == "$folder"/* ]]; then
      say "$folder is not read-only for builds, since nixgate writes below it: only the build users protect it"
      return
    fi
  done
  if [[ $EUID -ne 0 ]] || ! unshare --mount true 2>/dev/null; then
    say "${folders[*]} are not read-only for builds, which needs root and CAP_SYS_ADMIN: only the build users protect them"
    return
  fi
  printf '%s\n' unshare --mount "$ROOT/scripts/read-only.sh" "${folders[@]}" --
}
