# Unpacks $debs into $out and replaces each path of a Debian machine by the
# store path that holds the file: links, interpreters of scripts, and loader
# and library folders of ELF files. The steps stand in order at the end.
#
# From the derivation: out, debs, dependencies, triplet, python, pageSize, fixup.
# shellcheck shell=bash disable=SC2154 # those are assigned outside
set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C
umask 022
read -ra places <<<"$out $dependencies"

# Prints the path of the file that a Debian machine has at $1 (with or without
# /usr): in this output or in the nearest dependency that has it.
locate() {
    local path=${1#/usr} place
    for place in "${places[@]}"; do
        if [[ -e $place/${path#/} ]]; then
            echo "$place/${path#/}"
            return
        fi
    done
    return 1
}

# The path that link target $2 means in folder $1, without . and .. in it.
# Beyond the root there is the root: so it comes out right whether a link was
# written for /usr/lib or for /lib.
absolute_target() {
    local path=$2 part parts=() result=()
    [[ $path == /* ]] || path=$1/$path
    IFS=/ read -ra parts <<<"$path"
    for part in "${parts[@]}"; do
        case $part in
            '' | .) ;;
            ..) ((${#result[@]} == 0)) || unset 'result[-1]' ;;
            *) result+=("$part") ;;
        esac
    done
    (IFS=/ && echo "/${result[*]}")
}

unpack() {
    local deb
    mkdir "$out"
    for deb in $debs; do
        # /usr and / become one tree. tar, unlike dpkg-deb -x, can leave setuid
        # bits out; inside a build it may not set them.
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$out" \
            --no-same-owner --no-same-permissions --keep-directory-symlink \
            --transform='flags=rh;s,^\./usr/,./,' --transform='flags=rh;s,^\./usr$,.,'
    done
    # Some packages hold folders that their owner may not write to.
    find "$out" -type d ! -perm -u+w -exec chmod u+w {} +
}

# Programs all go to bin. Manuals and translations go: the latter are searched
# for in /usr/share/locale. Licences stay. What an init system, dpkg or a
# desktop would read has no reader in an image.
tidy() {
    local folder
    cd "$out"
    for folder in sbin games; do
        if [[ -d $folder ]]; then
            mkdir -p bin
            find "$folder" -mindepth 1 -maxdepth 1 -exec mv --no-clobber --target-directory=bin {} +
            # Left are links to the programs of that name in bin.
            rm -rf "$folder"
        fi
    done
    rm -rf share/{man,info,locale,lintian,bug,doc-base,menu,applications,pixmaps} \
        etc/{init.d,default,cron*,logrotate.d,apt,dpkg,systemd} \
        lib/{systemd,sysusers.d,tmpfiles.d,udev,modprobe.d} var run boot
    [[ ! -d share/doc ]] || find share/doc ! -type d ! -name copyright -delete
    find . -mindepth 1 -type d -empty -delete
}


# A link can be placed once its target exists, which may be another link: so
# all are taken away, and come back in rounds until a round places none.
fix_links() {
    local waiting entry link target found unplaced
    mapfile -t waiting < <(find "$out" -type l -printf '/%P\t%l\n' | sort)
    find "$out" -type l -delete
    while :; do
        unplaced=()
        for entry in "${waiting[@]}"; do
            IFS=$'\t' read -r link target <<<"$entry"
            if ! found=$(locate "$(absolute_target "${link%/*}" "$target")"); then
                unplaced+=("$entry")
            elif [[ $found == "$out"/* ]]; then
                ln --symbolic --relative "$found" "$out$link"
            else
                ln --symbolic "$found" "$out$link"
            fi
        done
        ((${#unplaced[@]} < ${#waiting[@]})) || break
        waiting=("${unplaced[@]}")
    done
    for entry in "${unplaced[@]}"; do
        echo "left out, a link to a file of no dependency: ${entry/$'\t'/ -> }"
    done
}

# Scripts get the interpreter that a dependency has. Without one a script would
# run, if at all, with what happens to be in the image: so it goes, as Debian's
# c_rehash does when openssl comes without perl. Outside of bin it may still be
# a module that others load, and is only made not executable.
fix_scripts() {
    local script line interpreter arguments found
    while IFS= read -r -d '' script; do
        IFS= read -r line <"$script" 2>/dev/null || true
        [[ $line =~ ^'#!'[[:space:]]*([^[:space:]]+)[[:space:]]*(.*)$ ]] || continue
        interpreter=${BASH_REMATCH[1]##*/} arguments=${BASH_REMATCH[2]}
        if [[ $interpreter == env ]]; then
            read -r interpreter arguments <<<"${arguments#-S}"
        fi
        if found=$(locate "/bin/$interpreter"); then
            # Not sed -i, which gives every script a new inode: hard links.
            line="#!$found${arguments:+ $arguments}"
            { echo "$line" && tail --lines=+2 "$script"; } >"$TMPDIR/script"
            cat "$TMPDIR/script" >"$script"
        elif [[ $script == "$out"/bin/* ]]; then
            echo "left out, no dependency has its interpreter $interpreter: ${script#"$out/"}"
            rm "$script"
        else
            chmod a-x "$script"
        fi
    done < <(find "$out" -type f -perm /111 -print0 | sort -z)
    find "$out" -xtype l -delete
}

# Prints the folder of library $1: the first of $2… and of $libraries to have it.
library_folder() {
    local library=$1 folder
    shift
    for folder in "$@" "${libraries[@]}"; do
        if [[ -e $folder/$library ]]; then
            echo "$folder"
            return
        fi
    done
    return 1
}

# The RPATH of ELF file $1, which needs libraries $2…: what it brought along
# itself ($ORIGIN and private folders), then the folder of each library.
rpath() {
    local file=$1 entry entries library folder path=() own=()
    shift
    IFS=: read -ra entries <<<"$(patchelf --print-rpath "$file")"
    for entry in "${entries[@]}"; do
        # shellcheck disable=SC2016
        if [[ $entry == *'$ORIGIN'* ]]; then
            own+=("${entry//'$ORIGIN'/"${file%/*}"}")
        elif folder=$(locate "$entry"); then
            own+=("$folder")
        fi
    done
    path=("${own[@]}")
    for library in "$@"; do
        if ! folder=$(library_folder "$library" "${own[@]}" "${file%/*}"); then
            # Plugins may need what only their host program has loaded.
            echo "in no dependency: $library, needed by ${file#"$out/"}" >&2
        elif [[ " ${path[*]} " != *" $folder "* ]]; then
            path+=("$folder")
        fi
    done
    (IFS=: && echo "${path[*]}")
}

# Modules of Python go where nixpkgs has them, and name those that they need as
# nixpkgs' modules do. The interpreter keeps its own.
shape_modules() {
    local modules=lib/python$python/site-packages place
    [[ -d lib/python3/dist-packages && ! -e bin/python3 ]] || return 0
    mkdir -p "lib/python$python" nix-support
    mv lib/python3/dist-packages "$modules"
    rmdir --ignore-fail-on-non-empty lib/python3
    for place in "${places[@]:1}"; do
        [[ ! -d $place/$modules || -e $place/bin/python3 ]] || echo "$place"
    done >nix-support/propagated-build-inputs
}

fix_elf_files() {
    local libraries=() place file inode magic needed loader path seen=" "
    for place in "${places[@]}"; do libraries+=("$place/lib/$triplet" "$place/lib"); done
    # The C library's own files are left as they are: the program that loads
    # one has loaded what it needs, and the loader must not be moved about.
    # Only libc itself loads a library later: libgcc_s, to end threads.
    for file in "$out/lib/$triplet"/ld-linux-*.so.*; do
        [[ -f $file ]] || continue
        patchelf --page-size "$pageSize" --set-rpath "$out/lib/$triplet" "$out/lib/$triplet/libc.so.6"
        return
    done
    while IFS=$'\t' read -r -d '' inode file; do
        IFS= read -r -N 4 magic <"$file" || continue
        # A hard link is one file under two names: changed once.
        [[ $magic == $'\x7fELF' && $seen != *" $inode "* ]] || continue
        seen+="$inode "
        # Fails on static programs, which have nothing to be changed.
        needed=$(patchelf --print-needed "$file" 2>/dev/null) || continue
        # Libraries have no interpreter; they need the folders nonetheless.
        if loader=$(patchelf --print-interpreter "$file" 2>/dev/null); then
            loader=$(locate "$loader")
            loader=$(readlink --canonicalize "$loader")
        fi
        # shellcheck disable=SC2086 # sonames hold no blanks
        path=$(rpath "$file" $needed)
        if [[ -n $path$loader ]]; then
            [[ -w $file ]] || chmod u+w "$file"
            patchelf --page-size "$pageSize" ${loader:+--set-interpreter "$loader"} \
                --set-rpath "$path" "$file"
        fi
    done < <(find "$out" -type f -size +64c ! -name '*.o' ! -name '*.a' -printf '%i\t%p\0' | sort -z)
}

# For fixups: puts a script in place of program $1 that sets the variables $2…,
# then runs it. NAME=VALUE sets one unless it is set; NAME+=VALUE appends to
# what a search path holds.
wrap() {
    local program=$out/bin/$1 hidden=$out/bin/.$1-wrapped
    shift
    mv "$program" "$hidden"
    write_wrapper "$program" "$hidden" "$@"
}

# For fixups: writes such a script as $1, running $2.
write_wrapper() {
    local script=$1 program=$2 assignment name value shell
    shift 2
    shell=$(locate /bin/bash)
    {
        echo "#!$shell"
        for assignment in "$@"; do
            name=${assignment%%=*} value=${assignment#*=}
            case $name in
                *+) echo "export ${name%+}=\"\${${name%+}:+\$${name%+}:}$value\"" ;;
                *) echo "export $name=\"\${$name-$value}\"" ;;
            esac
        done
        echo "exec -a \"\$0\" $program \"\$@\""
    } >"$script"
    chmod 755 "$script"
}

TMPDIR=${TMPDIR:-$PWD}
unpack
tidy
fix_links
fix_scripts
cd "$out"
shape_modules
fix_elf_files
eval "$fixup"
