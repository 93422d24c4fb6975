#!/bin/sh
# read-only.sh FOLDER... -- COMMAND...
#
# Makes folders and all mounts below them read-only, then runs the command. To be run in a new mount
# namespace (unshare --mount). Nix's mounts of these folders in its sandbox are read-only as well: a bind
# mount inherits the flags, and a sandbox can't remove them.

set -eu

while [ "$1" != -- ]; do
  mount --rbind "$1" "$1"
  findmnt --noheadings --list --output TARGET --submounts "$1" | while IFS= read -r place; do
    mount -o remount,bind,ro "$place"
  done
  shift
done
shift
exec "$@"
