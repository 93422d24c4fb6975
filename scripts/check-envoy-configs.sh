#!/usr/bin/env bash
# Validates every configuration under envoy/ with every tested Envoy and the built filter, and once more
# with the lines that begin with `#|`. The tests check filter.yaml, by delivering it to a running Envoy.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
# The filter refuses a configuration without a token.
export NIXGATE_TOKEN=only-validating
for version in "${ENVOY_VERSIONS[@]}"; do
  for config in envoy/*/envoy{,.before}.yaml; do
    [[ -e $config ]] || continue
    say "Envoy $version validates $config"
    for change in '' 's/#| //'; do
      [[ -z $change ]] || grep --quiet '#| ' "$config" || continue
      log=$("$TOOLS_DIR/bin/envoy-$version" --mode validate --log-level warning --disable-hot-restart --config-yaml "$(with_module "$config" | sed "$change")" 2>&1) ||
        fail "Envoy $version refuses $config${change:+ (sed '$change')}:"$'\n'"$log" "correct the error that it names"
    done
  done
done
