#!/usr/bin/env bash
# Validates every configuration under envoy/ with every tested Envoy and the built filter, and once more
# with the lines that begin with `#|`. Envoy validates no delivered configuration, so the listeners, clusters
# and routes of envoy/ingress-with-login are put into the configuration first. The tests check filter.yaml, by
# delivering it to a running Envoy.

# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"

# as_static FOLDER: prints FOLDER/envoy.yaml with the listeners, clusters and routes of the files beside it.
as_static() {
  local folder=$1 file
  sed '/^dynamic_resources:/,$d' "$folder/envoy.yaml"
  echo static_resources:
  for file in lds:listeners cds:clusters; do
    echo "  ${file#*:}:"
    awk -v folder="$folder" '
      /^ +rds: / {
        indent = "  " $0; sub(/rds:.*/, "", indent)
        file = $0; sub(/.* path: /, "", file); sub(/ .*/, "", file); sub(/.*\//, "", file)
        print indent "route_config:"
        while ((getline line < (folder "/" file)) > 0)
          if (line ~ /^    /) print indent substr(line, 3)
        next
      }
      # The items of the list "resources", without their types.
      /^  - "@type"/ { first = 1; next }
      /^    / { print (first ? "    - " : "      ") substr($0, 5); first = 0 }
    ' "$folder/${file%:*}.yaml"
  done
}

# validate NAME CONFIG: by Envoy $version.
validate() {
  local log
  log=$("$TOOLS_DIR/bin/envoy-$version" --mode validate --log-level warning --disable-hot-restart --config-yaml "$2" 2>&1) ||
    fail "Envoy $version refuses $1:"$'\n'"$log" "correct the error that it names"
}

delivered=$(mktemp -d)
trap 'rm -rf "$delivered"' EXIT
mkdir "$delivered/before" "$delivered/after"
for folder in before after; do
  cp envoy/ingress-with-login/before/*.yaml "$delivered/$folder"
  [[ $folder == before ]] || cp envoy/ingress-with-login/*.yaml "$delivered/$folder"
done

# The filter refuses a configuration without a token.
export NIXGATE_TOKEN=only-validating
for version in "${ENVOY_VERSIONS[@]}"; do
  for folder in before after; do
    say "Envoy $version validates envoy/ingress-with-login, $folder nixgate"
    config=$(as_static "$delivered/$folder" | sed "s|/etc/envoy/|$delivered/$folder/|")
    for change in '' 's/#| //'; do
      [[ -z $change ]] || grep --quiet '#| ' <<<"$config" || continue
      validate "envoy/ingress-with-login, $folder nixgate${change:+ (sed '$change')}" "$(sed "$change" <<<"$config")"
    done
  done
  for config in envoy/*/envoy{,.before}.yaml; do
    [[ -e $config && $config != envoy/ingress-with-login/* ]] || continue
    say "Envoy $version validates $config"
    for change in '' 's/#| //'; do
      [[ -z $change ]] || grep --quiet '#| ' "$config" || continue
      validate "$config${change:+ (sed '$change')}" "$(with_module "$config" | sed "$change")"
    done
  done
done
