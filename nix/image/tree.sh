# Makes the tree of the image: links to the files of its contents, then what the
# extra commands do to it. It leaves as an archive: the Nix store would take
# modes and owners from it.
#
# From the derivation: out, common, roots, extraCommandsPath, uid, gid.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
# shellcheck source=common.sh
. "$common"

# Links what is in folder $1 into folder $2. Folders are made, so that those of
# several packages can be one.
link() {
    local entry to new=()
    for entry in "$1"/*; do
        to=$2/${entry##*/}
        if [[ -d $entry && ! -L $entry ]]; then
            if [[ -L $to || (-e $to && ! -d $to) ]]; then
                echo "$entry is a folder, and ${to#*/} of another package is none:" \
                    "leave one of them out" >&2
                exit 1
            fi
            mkdir --parents "$to"
            link "$entry" "$to"
        elif [[ ! -L $to && -d $to ]]; then
            echo "$entry is no folder, and ${to#*/} of another package is one:" \
                "leave one of them out" >&2
            exit 1
        elif [[ ! -L $to && ! -e $to ]]; then
            new+=("$entry")
        fi
    done
    ((${#new[@]} == 0)) || ln --symbolic --target-directory="$2" "${new[@]}"
}

mkdir root
read -ra packages <<<"$roots"
for package in "${packages[@]}"; do
    if [[ ! -d $package ]]; then
        echo "contents has $package, which is no folder: copy it in extraCommands" >&2
        exit 1
    fi
    link "$package" root
done
(
    cd root
    # With the shell's own ways, other than those of this script.
    bash -euo pipefail "$extraCommandsPath"
)
mkdir "$out"
# As `:<number>`: of `+0`, tar makes the user who packs.
"${archive[@]}" --create --file="$out/tree.tar" --owner=":$uid" --group=":$gid" \
    --directory=root .
