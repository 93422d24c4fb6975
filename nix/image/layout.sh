# Puts the image together: the last layer, the documents, the layout.
#
# From the derivation: out, common, layers, tree, configFile, tag, imageName,
# architecture; the files closure-* and mentioned-*.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
# shellcheck source=common.sh
. "$common"

read_closures closure-*
packed=("${!references[@]}")
read_closures mentioned-*
unset "references[$tree]" "references[$configFile]"
for path in "${packed[@]}"; do
    unset "references[$path]"
done

blobs=$out/blobs/sha256
mkdir --parents "$blobs"
below=("$layers"/blobs/*)
((${#below[@]} == 0)) || ln --symbolic --target-directory="$blobs" "${below[@]}"

cp "$tree/tree.tar" last.tar
chmod u+w last.tar
if ((${#references[@]} > 0)); then
    printf '%s\n' "${!references[@]}" | cut --characters=2- | sort >paths
    "${archive[@]}" --append --file=last.tar --owner=:0 --group=:0 \
        --directory=/ --files-from=paths
fi
{
    cat "$layers/layers"
    pack last.tar "$blobs"
} >all

# Stores the document $1 and prints its descriptor, of the media type $2.
document() {
    local digest
    digest=$(sha256sum "$1")
    jq --null-input --compact-output --arg type "$2" --arg digest "sha256:${digest%% *}" \
        --argjson size "$(stat --format=%s "$1")" \
        '{mediaType: $type, digest: $digest, size: $size}'
    mv "$1" "$blobs/${digest%% *}"
}

# Without a newline at their ends, as others write such documents.
jq --null-input --join-output --compact-output --rawfile layers all \
    --slurpfile config "$configFile" --arg architecture "$architecture" '
    ($layers | split("\n") | map(select(. != "") | split(" "))) as $layers
    | "1970-01-01T00:00:00Z" as $created
    | {
        created: $created,
        architecture: $architecture,
        os: "linux",
        config: $config[0],
        rootfs: {type: "layers", diff_ids: [$layers[] | .[2]]},
        history: [$layers[] | {created: $created, created_by: "nixgate: nix/image"}]
      }' >config.json
config=$(document config.json application/vnd.oci.image.config.v1+json)

jq --null-input --join-output --compact-output --rawfile layers all \
    --argjson config "$config" '
    {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: $config,
      layers: [
        $layers | split("\n")[] | select(. != "") | split(" ") | {
          mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
          digest: .[0],
          size: (.[1] | tonumber)
        }
      ]
    }' >manifest.json
manifest=$(document manifest.json application/vnd.oci.image.manifest.v1+json)

jq --null-input --compact-output --argjson manifest "$manifest" --arg tag "$tag" \
    --arg name "$imageName" --arg architecture "$architecture" '
    {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        $manifest + {
          platform: {architecture: $architecture, os: "linux"},
          annotations: {
            "org.opencontainers.image.ref.name": $tag,
            "io.containerd.image.name": $name
          }
        }
      ]
    }' >"$out/index.json"
echo '{"imageLayoutVersion":"1.0.0"}' >"$out/oci-layout"
