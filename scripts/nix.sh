# Nix: any that is on PATH, a store that this user can write to, and users to build as. To be sourced.
# shellcheck shell=bash

# As whom Nix builds when it is root: each build as a user of its own, who owns nothing.
BUILD_GROUP=nixbld
BUILD_USERS=32
# By which `make uninstall` knows those that were made here.
BUILD_USER_COMMENT="nixgate build user"

nix_daemon_runs() { [[ -S ${NIX_DAEMON_SOCKET_PATH:-/nix/var/nix/daemon-socket/socket} ]]; }

# Without a daemon, Nix works for the one user who owns /nix.
nix_store_is_ours() { nix_daemon_runs || [[ $EUID -eq 0 || -w /nix ]]; }

make_nix_store() {
  [[ ! -e /nix ]] || fail "/nix belongs to $(stat --format=%U /nix), and no Nix daemon runs" \
    "start nix-daemon, or run as that user, or give the folder away: sudo chown -R $(id -un) /nix"
  as_root install -d -o "$(id -un)" /nix
}

# Whether builds may run as the user who owns the store, and so change each other's packages.
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
  fail "the users that Nix builds as can't be made" \
    "read the message above; to have Nix build as root, when you trust all packages: NIXGATE_ALLOW_SHARED_BUILD_USER=true"
}

# A user that still runs something stays, and so does their group; the rest is removed.
remove_build_users() {
  local name left=()
  for name in $(getent passwd | awk -F: -v comment="$BUILD_USER_COMMENT" '$5 == comment { print $1 }'); do
    as_root userdel "$name" || left+=("$name")
  done
  ((${#left[@]} == 0)) || {
    say "left: ${left[*]}, since the system does not remove them (see above; what a user runs is shown by: ps -u <name>): end that, and run make uninstall again"
    return 0
  }
  # Users that somebody else made keep their group.
  build_users_exist || ! getent group "$BUILD_GROUP" >/dev/null || as_root groupdel "$BUILD_GROUP" ||
    say "left: the group $BUILD_GROUP, since the system does not remove it (see above)"
}

# Folders of the machine that builds of the embedded set use; its builders are the machine's own tools.
machine_folders() {
  local folder
  for folder in /bin /usr /lib /lib64; do
    [[ ! -e $folder ]] || printf '%s\n' "$folder"
  done
}

# The options that the builder gives Nix on this machine, as NIXGATE_NIX_OPTIONS wants them.
# embedded_set: whether it serves the Debian set, whose builders use the host's /bin and /usr and
# whose packages no binary cache knows.
nix_options() {
  local embedded_set=$1 folders options=()
  if [[ $EUID -eq 0 ]] && ! build_users_exist && build_user_is_shared; then
    # Nix as root wants a group of build users unless told that there is none.
    options+=("build-users-group=")
  fi
  if [[ $embedded_set == true ]]; then
    mapfile -t folders < <(machine_folders)
    options+=("substituters=" "sandbox-paths=${folders[*]}")
  fi
  local IFS=';'
  printf '%s\n' "${options[*]}"
}

# What of the machine's folders is no link into another one of them.
real_folders() {
  local folder
  for folder in $(machine_folders); do
    [[ $(readlink --canonicalize "$folder") != "$folder" ]] || printf '%s\n' "$folder"
  done
}

# The command that another one is given to, so that it and its builds see the machine's folders
# read-only; nothing where that can't be had.
read_only_wrapper() {
  local folders folder
  mapfile -t folders < <(real_folders)
  for folder in "${folders[@]}"; do
    if [[ $STATE_DIR/ == "$folder"/* || ${STORAGE_PATH:-}/ == "$folder"/* ]]; then
      say "builds see $folder as it is, and not read-only, since nixgate writes below it: build users alone keep them from changing it"
      return
    fi
  done
  if [[ $EUID -ne 0 ]] || ! unshare --mount true 2>/dev/null; then
    say "builds see ${folders[*]} as they are, and not read-only, which takes root and CAP_SYS_ADMIN: build users alone keep them from changing these"
    return
  fi
  printf '%s\n' unshare --mount "$ROOT/scripts/read-only.sh" "${folders[@]}" --
}
