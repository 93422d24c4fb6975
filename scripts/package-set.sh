#!/usr/bin/env bash
# Prepares the embedded package set in STATE_DIR/debian: the Nix files, and for each architecture
# an index of what Debian (or Ubuntu) offers today.
#
#   package-set.sh amd64 arm64
#
# An index is kept for a week: a mirror drops superseded packages, and with them what an older
# index points to. When it can't be renewed, the old one still serves what Nix has already fetched.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

INDEX_DAYS=7

source=$ROOT/nix/debian
set=$STATE_DIR/debian
# index.py keeps apt's lists beside what it writes. They are no part of the set, whose identity
# is its folder's content: so it works next door.
workshop=$STATE_DIR/apt
mkdir -p "$set" "$workshop"

# Only what the expression reads.
for file in "$source"/*.nix "$source"/*.sh "$source"/packages.json; do
  target=$set/${file##*/}
  cmp --silent "$file" "$target" || cp "$file" "$target"
done

# is_current INDEX: younger than a week and than what it was made by.
is_current() {
  [[ -n $(find "$1" -mtime "-$INDEX_DAYS" 2>/dev/null) &&
    $1 -nt $source/index.py && $1 -nt $source/packages.json ]]
}

for architecture in "$@"; do
  index=$set/index-$architecture.json
  is_current "$index" && continue
  say "asking apt what this system's mirror offers for $architecture (fetches its package lists, 10 MB, where they are missing)"
  made=$workshop/${index##*/}
  if python3 "$source/index.py" --arch "$architecture" --out "$made"; then
    # Renamed into place: a builder that runs never reads half of it.
    mv "$made" "$index"
  else
    [[ -e $index ]] || fail "there is no index of packages for $architecture" "see the message above"
    say "keeping the older index for $architecture"
  fi
done
