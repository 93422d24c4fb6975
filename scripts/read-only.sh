#!/bin/sh
# read-only.sh FOLDER... -- COMMAND...
#
# Makes folders read-only, with all that is mounted below them, and becomes the command. To be run in a
# mount namespace of its own (unshare --mount). What Nix then mounts of them into its sandbox is
# read-only as well: a mount of a mount has its flags, and in a sandbox nobody can take them off.

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
