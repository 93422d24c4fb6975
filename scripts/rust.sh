# Rust: the filter's target, and cargo's tools. To be sourced by setup.sh.
# shellcheck shell=bash

CARGO_DENY=0.20.2
MDBOOK=0.5.4

require_rust() {
  have cargo || fail "cargo is missing" "install a Rust toolchain by rustup, open a new shell, and run the same command again"
  # As cargo checks itself, but earlier and with the remedy.
  local wanted have_version
  wanted=$(sed -nE 's/^rust-version = "(.*)"/\1/p' "$ROOT/Cargo.toml")
  have_version=$(rustc --version | cut -d' ' -f2)
  printf '%s\n' "$wanted" "$have_version" | sort --check=quiet --version-sort ||
    fail "nixgate needs Rust $wanted, and this is $have_version" "run: rustup update stable"
}

wasm_target_installed() { [[ -d $(rustc --print sysroot)/lib/rustlib/$WASM_TARGET ]]; }

install_wasm_target() {
  have rustup || fail "the Rust target $WASM_TARGET and rustup are missing" \
    "install your toolchain's $WASM_TARGET standard library (on Debian: libstd-rust-dev-wasm32)"
  rustup target add "$WASM_TARGET" || fail "rustup could not add $WASM_TARGET" \
    "read its message above; behind a mirror set RUSTUP_DIST_SERVER"
}

# cargo_tool_installed NAME VERSION
cargo_tool_installed() { [[ -e $TOOLS_DIR/.$1-$2 ]]; }

install_cargo_tool() {
  cargo install --quiet --locked "$1" --version "$2" --root "$TOOLS_DIR" ||
    fail "cargo could not install $1 $2" "read its message above; it is often the network"
  touch "$TOOLS_DIR/.$1-$2"
}
