#!/usr/bin/env bash
# Prepares the embedded package set in STATE_DIR/debian: the Nix files, and for each architecture an index
# of the packages of Debian (or Ubuntu).
#
#   package-set.sh amd64 arm64
#
# An index is renewed after a week, since mirrors drop superseded packages. If that fails, the old one
# still serves the packages that Nix has already fetched.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

INDEX_DAYS=7

source=$ROOT/nix/debian
set=$STATE_DIR/debian
# index.py keeps apt's lists beside its output. They must not be in the set's folder, whose content is
# the set's identity.
work=$STATE_DIR/apt
mkdir -p "$set" "$work"

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
  say "reading the package lists of apt's mirror for $architecture (fetches 10 MB if they are missing)"
  made=$work/${index##*/}
  if python3 "$source/index.py" --arch "$architecture" --out "$made"; then
    # Renamed into place: a builder that runs never reads half of it.
    mv "$made" "$index"
  else
    [[ -e $index ]] || fail "cannot make an index of packages for $architecture" "read the message above"
    say "keeping the older index for $architecture"
  fi
done
