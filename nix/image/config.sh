# Writes down the config, so that Nix finds the store paths in it.
#
# From the derivation: out, common, configPath.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
# shellcheck source=common.sh
. "$common"

cp "$configPath" "$out"
