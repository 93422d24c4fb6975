# What the steps of an image have in common. To be sourced.
# shellcheck shell=bash
set -euo pipefail
shopt -s inherit_errexit nullglob dotglob
export LC_ALL=C
umask 022

# The same bytes for the same files: no times, no owners of this machine, and
# no hard links, which depend on whether the Nix store was optimised.
archive=(
    tar --format=gnu --sort=name --mtime=@1 --numeric-owner --hard-dereference
)

# Reads what Nix writes of closures: for each store path itself, its deriver, a
# number, and so many references. Sets references[path] to how many others of
# the closures refer to it.
declare -A references=()
read_closures() {
    local graph path count reference index fresh
    for graph in "$@"; do
        while read -r path; do
            # It may stand in several graphs, and have been referred to before.
            fresh=1
            [[ -z ${seen[$path]-} ]] || fresh=0
            seen[$path]=1
            references[$path]=${references[$path]:-0}
            read -r # the deriver, which may be empty
            read -r count
            for ((index = 0; index < count; index++)); do
                read -r reference
                if ((fresh)) && [[ $reference != "$path" ]]; then
                    references[$reference]=$((${references[$reference]:-0} + 1))
                fi
            done
        done <"$graph"
    done
}
declare -A seen=()

# Packs the tar archive $1 into the folder $2 of blobs, and prints digest, size
# and the digest of the archive itself.
pack() {
    local diff_id digest
    diff_id=$(sha256sum "$1")
    gzip --no-name <"$1" >packed
    digest=$(sha256sum packed)
    printf 'sha256:%s %s sha256:%s\n' \
        "${digest%% *}" "$(stat --format=%s packed)" "${diff_id%% *}"
    mv packed "$2/${digest%% *}"
    rm "$1"
}
