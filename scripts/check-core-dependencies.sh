#!/usr/bin/env bash
# Checks that the core is pure: neither it nor its dependencies do I/O.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
found=$(cargo tree --locked --package nixgate-core --edges normal --prefix none --format '{p}' |
  grep -E '^(tokio|hyper|proxy-wasm|mio|rustix) ' | sort -u) || true
[[ -z $found ]] || fail "nixgate-core depends on $found" \
  "decide in the core, act in the filter or the builder: move what needs it there"
