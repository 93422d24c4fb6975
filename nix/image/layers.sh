# Packs the closure of the contents: what most others refer to into layers of
# their own, since other images are the likeliest to have those too, and the
# rest into one.
#
# From the derivation: out, common, maxLayers; the files closure-*.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
# shellcheck source=common.sh
. "$common"

read_closures closure-*
mkdir --parents "$out/blobs"
: >"$out/layers"

# Of the same count, by name: so every machine agrees.
ranked=()
while read -r _ path; do
    ranked+=("$path")
done < <(
    for path in "${!references[@]}"; do
        echo "${references[$path]} $path"
    done | sort --key=1,1nr --key=2
)

layer() {
    printf '%s\n' "${@#/}" >paths
    "${archive[@]}" --create --file=layer.tar --owner=:0 --group=:0 \
        --directory=/ --files-from=paths
    pack layer.tar "$out/blobs" >>"$out/layers"
}

alone=${#ranked[@]}
((alone <= maxLayers)) || alone=$((maxLayers - 1))
for path in "${ranked[@]:0:alone}"; do
    layer "$path"
done
rest=("${ranked[@]:alone}")
((${#rest[@]} == 0)) || layer "${rest[@]}"
