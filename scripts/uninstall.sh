#!/usr/bin/env bash
# Removes everything that nixgate installed or wrote, and lists what remains.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/scripts/nix.sh"

# By name: TOOLS_DIR may be shared, and STATE_DIR may have files of the user.
shopt -s nullglob
ours=("$ROOT/target" "$ROOT/docs/book"
  "$TOOLS_DIR"/{envoy-*,nix-*,foreign-node,bin/foreign-node,bin/envoy-*,bin/cargo-deny,bin/mdbook,.cargo-deny-*,.mdbook-*,.crates.toml,.crates2.json}
  "$STATE_DIR"/{apt,debian,builder,storage,e2e,gateway,token,envoy.yaml,filter.yaml,envoy-admin.sock,envoy.log,envoy-access.log}
  "$STATE_DIR"/envoy{,-access}.log.[0-9])
for path in "${ours[@]}"; do
  if [[ -e $path || -L $path ]]; then
    say "removing $path"
    rm -rf "$path"
  fi
done
if getent passwd | grep --quiet ":$BUILD_USER_COMMENT:"; then
  say "removing the users that Nix built as, and their group $BUILD_GROUP"
  remove_build_users
fi
rmdir "$TOOLS_DIR/bin" "$TOOLS_DIR" "$STATE_DIR" 2>/dev/null || true
cat >&2 <<'END'
nixgate: not removed, since others may use them:
  - /nix/store: `nix-collect-garbage` (as the user that ran nixgate) removes the packages of images
  - packages that apt installed: nix-bin patchelf xz-utils gcc g++ binutils libc6-dev python3-venv, and
    for `make gateway` apache2-utils openssl, for tests skopeo podman containerd docker.io runc curl jq
    openssl git qemu-user-static nginx-light docker-registry fcgiwrap spawn-fcgi dropbear-bin
    openssh-client faketime haproxy systemd-container, and for `make bench` wrk
    (apt-get remove <name>)
  - Rust's target: rustup target remove wasm32-wasip1
END
