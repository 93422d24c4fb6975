# Makes the tree of the image: the merged directories of its contents with links
# to their files, what every image has, then what the extra commands do to it.
# It leaves as an archive: the Nix store would take modes and owners from it.
#
# nixgate's server makes the same tree of the same packages, and says why in
# host-builder/src/layer/symlinks.rs, base.rs, foreign.rs and reach.rs beside it.
# A test compares them.
#
# From the derivation: out, common, roots, extraCommandsPath, uid, gid.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
# shellcheck source=common.sh
. "$common"
shopt -s extglob

# A path is relative to the root of the image, and of a package; a directory's
# ends with a slash.

# What the image needs itself: directories with their modes, files by their text.
declare -A own_directories=(
    [dev]=755 [home]=755 [proc]=755 [root]=700 [run]=755 [sys]=755 [tmp]=1777 [var/tmp]=1777
)
declare -A own_files=(
    [etc/passwd]='root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
'
    [etc/group]='root:x:0:
nogroup:x:65534:
nobody:x:65534:
'
    [etc/nsswitch.conf]='passwd: files
group: files
shadow: files
hosts: files dns
networks: files
services: files
protocols: files
'
    [etc/os-release]='NAME=nixgate
ID=nixgate
PRETTY_NAME="nixgate image"
'
)
declare -A own_links=()
fonts='<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
</fontconfig>
'
# Directories that no package may replace: those, and those above the files.
declare -A needed=()

# What is only for Nix's builders; what a container's runtime mounts over.
for_builders='^(nix-support|propagated-.*)$'
mounted='^(dev|nix|proc|sys)$'

# The modules that packages need are there for their folders of modules alone.
declare -A is_module=()

left_out() {
    local reason="it is the image's own"
    echo "/$1 of ${2##*/} is left out: ${3:-$reason}" >&2
}

# Whether the target $3 of link $2 of package $1 is a directory that is merged, in
# the same package and not behind further links; sets `merged` to its path.
leads_to_merged() {
    local name names
    [[ -d $1/$2 ]] || return 1
    merged=
    [[ $2 != */* ]] || merged=${2%/*}/
    IFS=/ read -ra names <<<"$merged$3"
    merged=
    for name in "${names[@]}"; do
        case $name in
            '' | .) ;;
            ..)
                [[ -n $merged ]] || return 1
                merged=${merged%/}
                if [[ $merged == */* ]]; then merged=${merged%/*}/; else merged=; fi
                ;;
            *)
                [[ -n $merged || ! ($name =~ $for_builders || $name =~ $mounted) ]] || return 1
                [[ -d $1/$merged$name && ! -L $1/$merged$name ]] || return 1
                merged+=$name/
                ;;
        esac
    done
}

# Whether $2 is a directory of package $1, or leads to one in the store that is
# not on the way to itself.
is_directory() {
    local target above
    [[ -d $1/$2 ]] || return 1
    [[ -L $1/$2 ]] || return 0
    target=$(realpath "$1/$2")
    [[ $target == /nix/store/* ]] || return 1
    above=$2
    while [[ $above == */* ]]; do
        above=${above%/*}
        [[ $target != "$(realpath "$1/$above")" ]] || return 1
    done
    [[ $target != "$(realpath "$1")" ]]
}

# Whether a package takes part in what is called $3 in directory $2.
takes_part() {
    [[ -n $2 || ! $3 =~ $for_builders ]] || return 1
    [[ -n ${is_module["$1"]-} ]] || return 0
    case $2 in
        '') [[ $3 == lib && ! -L $1/lib ]] ;;
        lib/) [[ $3 == perl5 || $3 == python[0-9]* ]] ;;
        lib/perl5/) [[ $3 == site_perl ]] ;;
        lib/python*([^/])/) [[ $3 == site-packages ]] ;;
    esac
}

# Whether one package alone has directory $1: package $2, if there is no $3. Of a
# module, that has to be a folder of modules or below, since the tree lacks the
# rest of its package.
is_alone() {
    (($# == 2)) && [[ -z ${is_module["$2"]-} || $1 == */*/* ]]
}

# Makes links to $2… in directory $1, or copies of them, which are links.
in_rounds() {
    local into=$1
    shift
    while (($# > 0)); do
        "${command[@]}" --target-directory="$into" -- "${@:1:500}"
        shift $(($# < 500 ? $# : 500))
    done
}

# Merges the directory $1 of packages $3…. In the profile too, unless a link above
# is there for all of it: then $2 is not empty.
merge() {
    local at=$1 linked=$2 package entry name key path kept target same_as is_needed
    local candidates parts others links=() to_link=() to_copy=() in_profile=() found below
    local -A having=() text=()
    shift 2
    for package in "$@"; do
        for entry in "$package/$at"*; do
            name=${entry##*/}
            takes_part "$package" "$at" "$name" || continue
            having["/$name"]+=" $package"
            [[ ! -L $entry ]] || links+=("$entry")
        done
    done
    while ((${#links[@]} > 0)); do
        mapfile -d '' -t found < <(readlink --zero -- "${links[@]:0:500}")
        for entry in "${found[@]}"; do
            text["${links[0]}"]=$entry
            links=("${links[@]:1}")
        done
    done
    for key in "${!having[@]}"; do
        name=${key#/} path=$at${key#/}
        read -ra candidates <<<"${having["$key"]}"
        if [[ -z $at && $name =~ $mounted ]]; then
            for package in "${candidates[@]}"; do left_out "$path" "$package"; done
            continue
        fi
        is_needed=${needed["$path"]-}

        # Do they agree on one link?
        target_of "${candidates[0]}"
        same_as=$target
        for package in "${candidates[@]}"; do
            [[ -z $is_needed && (-L $package/$path || ! -d $package/$path) ]] || break
            target_of "$package"
            [[ $target == "$same_as" ]] || break
            [[ $package != "${candidates[-1]}" ]] || {
                place "${candidates[0]}"
                continue 2
            }
        done

        parts=() others=()
        for package in "${candidates[@]}"; do
            if is_directory "$package" "$path"; then
                parts+=("$package")
            else
                others+=("$package")
            fi
        done
        if ((${#parts[@]} > 0)); then
            kept="${parts[0]##*/} has it"
            [[ -z $is_needed ]] || kept=
            for package in "${others[@]}"; do left_out "$path" "$package" "$kept"; done
            mkdir "root/$path"
            below=$linked
            if [[ -z $linked ]] && is_alone "$path" "${parts[@]}"; then
                below=1
                ln --symbolic "${parts[0]}/$path" "$profile/$path"
            elif [[ -z $linked ]]; then
                mkdir "$profile/$path"
            fi
            merge "$path/" "$below" "${parts[@]}"
            continue
        fi
        if [[ -n $is_needed ]]; then
            for package in "${others[@]}"; do left_out "$path" "$package"; done
            continue
        fi
        place "${others[0]}"
        target_of "${others[0]}"
        same_as=$target
        for package in "${others[@]:1}"; do
            target_of "$package"
            [[ $target == "$same_as" ]] || left_out "$path" "$package" "${others[0]##*/} has it"
        done
    done
    command=(ln --symbolic) && in_rounds "root/$at" "${to_link[@]}"
    command=(cp --no-dereference) && in_rounds "root/$at" "${to_copy[@]}"
    [[ -z $linked ]] || return 0
    # What leads out of the store is not for the profile.
    for entry in "${to_copy[@]}"; do
        [[ ${text["$entry"]} == /* && ${text["$entry"]} != /nix/store/* ]] || in_profile+=("$entry")
    done
    command=(ln --symbolic) && in_rounds "$profile/$at" "${to_link[@]}"
    command=(cp --no-dereference) && in_rounds "$profile/$at" "${in_profile[@]}"
}

# For merge: sets `target` to where the image's link to package $1's entry leads:
# a directory of the image, or a path.
target_of() {
    local merged link=${text["$1/$path"]-}
    if [[ $link == /* ]]; then
        target=$link
    elif [[ -n $link ]] && leads_to_merged "$1" "$path" "$link"; then
        target=directory:$merged
    else
        target=$1/$path
    fi
}

# For merge: puts the entry of package $1 into the image.
place() {
    target_of "$1"
    if [[ $target == "$1/$path" ]]; then
        to_link+=("$1/$path")
    else
        to_copy+=("$1/$path")
    fi
}

# Adds to `modules` those that package $1 propagates, nearest first.
add_modules() {
    local ahead=("$1") package next text names
    local -A seen=(["$1"]=1)
    while ((${#ahead[@]} > 0)); do
        package=${ahead[0]} ahead=("${ahead[@]:1}")
        text=$package/nix-support/propagated-build-inputs
        [[ -f $text && ! -L $text ]] || continue
        read -r -d '' -a names <"$text" || true
        for next in "${names[@]}"; do
            [[ -e $next && -z ${seen["$next"]-} ]] || continue
            seen["$next"]=1
            [[ ! -L $next/bin/python3 && ! -e $next/bin/python3 ]] || continue
            [[ ! -L $next/bin/python && ! -e $next/bin/python ]] || continue
            [[ ! -L $next/bin/perl && ! -e $next/bin/perl ]] || continue
            for text in "$next"/lib/{python[0-9]*/site-packages,perl5/site_perl}; do
                [[ -d $text ]] || continue
                ahead+=("$next")
                [[ -z ${is_module["$next"]-} && " ${packages[*]} " != *" $next "* ]] || break
                is_module["$next"]=1
                modules+=("$next")
                break
            done
        done
    done
}

# The packages' tree by links into the store alone, for containers that have
# nothing of the image but its /nix.
profile=root/nix/var/nixgate/profile
mkdir --parents "$profile"
read -ra packages <<<"$roots"
modules=() has_loader=
libraries=()
for package in "${packages[@]}"; do
    if [[ ! -d $package ]]; then
        echo "contents has $package, which is no folder: copy it in extraCommands" >&2
        exit 1
    fi
    add_modules "$package"
    [[ ! -e $package/bin/env ]] || own_links[usr/bin/env]=/bin/env
    [[ ! -e $package/etc/ssl/certs/ca-bundle.crt ]] ||
        own_links[etc/ssl/certs/ca-certificates.crt]=ca-bundle.crt
    [[ ! -e $package/share/fonts ]] || own_files[etc/fonts/image.conf]=$fonts
    for path in lib/ld-linux-{aarch64.so.1,x86-64.so.2}; do
        [[ ! -e $package/$path ]] || has_loader=1
    done
    [[ ! -e $package/lib/ld-linux-x86-64.so.2 ]] ||
        own_links[lib64/ld-linux-x86-64.so.2]=/lib/ld-linux-x86-64.so.2
    for path in lib{gcc_s.so.1,stdc++.so.6}; do
        [[ ! -e $package/lib/$path ]] || libraries+=("$path")
    done
done
for path in "${libraries[@]}"; do
    [[ -z $has_loader ]] || own_links["usr/lib/foreign/$path"]=/lib/$path
done
for path in "${!own_files[@]}" "${!own_links[@]}"; do
    while [[ $path == */* ]]; do
        path=${path%/*}
        needed["$path"]=1
    done
done
for path in "${!own_directories[@]}"; do
    needed["$path"]=1
    [[ $path != */* ]] || needed["${path%/*}"]=1
done

merge "" "" "${packages[@]}" "${modules[@]}"

for path in "${!own_directories[@]}"; do
    mkdir --parents "root/$path"
    chmod "${own_directories["$path"]}" "root/$path"
done
for path in "${!own_files[@]}"; do
    [[ ! -L root/$path && ! -e root/$path ]] || continue
    mkdir --parents "root/${path%/*}"
    printf %s "${own_files["$path"]}" >"root/$path"
done
for path in "${!own_links[@]}"; do
    [[ ! -L root/$path && ! -e root/$path ]] || continue
    mkdir --parents "root/${path%/*}"
    ln --symbolic "${own_links["$path"]}" "root/$path"
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
