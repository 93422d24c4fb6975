#!/usr/bin/env bash
# The rule that makes the core pure: nothing of it, or of what it depends on, does I/O.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
found=$(cargo tree --locked --package nixgate-core --edges normal --prefix none --format '{p}' |
  grep -E '^(tokio|hyper|proxy-wasm|mio|rustix) ' | sort -u) || true
[[ -z $found ]] || fail "nixgate-core depends on $found" \
  "decide in the core, act in the filter or the builder: move what needs it there"
