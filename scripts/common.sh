# Paths and messages that all scripts share. To be sourced.
#
#   STATE_DIR/            everything that nixgate writes outside of target/ and /nix (default .nixgate)
#     tools/              tools that setup.sh installed: bin/, envoy-<version>/, stamps of finished steps
#     debian/             the embedded package set with its indexes
#     builder/ storage/   the builder's state and its published images
#     token               the secret between Envoy and the builder
#     envoy.yaml          Envoy's configuration with this run's ports
#     filter.yaml         the filter's, which Envoy watches
#     gateway/            the same for envoy/corporate-gateway, with its certificate and users
#
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE_DIR=${STATE_DIR:-$ROOT/.nixgate}
# Absolute, since the builder runs in another folder.
[[ $STATE_DIR == /* ]] || STATE_DIR=$PWD/$STATE_DIR
# Several state folders can share one set of tools.
TOOLS_DIR=${TOOLS_DIR:-$STATE_DIR/tools}
[[ $TOOLS_DIR == /* ]] || TOOLS_DIR=$PWD/$TOOLS_DIR
export STATE_DIR TOOLS_DIR
# Where cargo builds. A relative path is relative to the repository.
TARGET_DIR=${CARGO_TARGET_DIR:-target}
[[ $TARGET_DIR == /* ]] || TARGET_DIR=$ROOT/$TARGET_DIR

# The Envoys that are tested, newest first; `make run` uses the first.
ENVOY_VERSIONS=(1.40.0 1.36.2)
WASM_TARGET=wasm32-wasip1

# Root's programs (runc, dpkg's helpers) are not on every user's PATH.
PATH=$TOOLS_DIR/bin:$PATH:/usr/sbin:/sbin

say() { printf '%s\n' "nixgate: $*" >&2; }

# fail WHAT REMEDY: every failure names its remedy.
fail() {
  printf '%s\n' "nixgate: $1" "   what to do: $2" >&2
  exit 1
}

# with_module FILE: prints an Envoy configuration with the path of the built filter.
with_module() {
  sed "s|target/wasm32-wasip1/|$TARGET_DIR/wasm32-wasip1/|" "$1"
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [[ $EUID -eq 0 ]]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    fail "'$*' needs root, and there is no sudo here" "run the same command as root, or install sudo"
  fi
}
