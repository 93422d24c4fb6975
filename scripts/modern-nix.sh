# A Nix that today's nixpkgs works with, on a Debian that has none: nix-bin of a later Debian, unpacked into
# TOOLS_DIR/nix-<version> beside the libraries that it was built with. To be sourced.
#
#   this machine's apt sources ── their Debian, MODERN_DEBIAN in place of its release ──► apt with folders
#   of its own: checks signatures and hashes ──► .debs ──► bin/ and lib/, bound to each other by patchelf
#
# It works on the same /nix as the machine's Nix. No package of the machine is installed or changed.
# shellcheck shell=bash

# The oldest Nix that nixpkgs works with today (the README says it too).
MODERN_NIX_MINIMUM=2.18
# What is installed where neither PATH nor apt have a newer one.
MODERN_NIX=2.26
MODERN_DEBIAN=trixie
DEBIAN_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# Packages with libraries. Of the others that nix-bin depends on, only the programs are needed, and this
# machine's will do.
MODERN_NIX_PACKAGES='^(nix-bin|bash-static|zlib1g|lib.*)$'
MODERN_NIX_OTHERS='^lib(.*-perl$|perl|debconf|pam|audit|sema|sepol|systemd)'

modern_nix_folder() { printf '%s\n' "$TOOLS_DIR/nix-$MODERN_NIX/bin"; }

modern_nix_installed() { [[ -x $(modern_nix_folder)/nix-store ]]; }

# Whether a version of Nix, such as 2.26.3, is new enough for nixpkgs.
is_modern() {
  [[ -n $1 ]] && printf '%s\n' "$MODERN_NIX_MINIMUM" "$1" | sort --check=quiet --version-sort
}

modern_nix_on_path() {
  # "nix (Nix) 2.26.3+1"
  have nix && is_modern "$(nix --version 2>/dev/null | sed -nE 's/.* ([0-9]+\.[0-9]+).*/\1/p')"
}

# Whether apt would install one that is new enough.
modern_nix_in_apt() {
  have apt-cache && is_modern "$(apt-cache policy nix-bin | sed -nE 's/^ *Candidate: ([0-9]+\.[0-9]+).*/\1/p')"
}

# Whether the package set is another than the embedded one, which works with every supported Nix.
serves_other_set() {
  [[ -n ${NIXERY_CHANNEL:-}${NIXERY_PKGS_REPO:-}${NIXERY_PKGS_PATH:-}${NIXGATE_FLAKE:-} ]]
}

# Puts the installed one first on PATH, unless PATH has one that is new enough.
use_modern_nix() {
  modern_nix_on_path || ! modern_nix_installed || PATH=$(modern_nix_folder):$PATH
}

# The option that gives builds their /bin/sh, if PATH's Nix is the installed one: Debian's takes it from
# /usr/bin, where a later Debian has it.
modern_nix_shell() {
  [[ $(command -v nix) != "$(modern_nix_folder)/nix" ]] ||
    printf '%s\n' "sandbox-paths=/bin/sh=$TOOLS_DIR/nix-$MODERN_NIX/libexec/bash-static"
}

# Sources like this machine's for Debian, of a later release, as deb822.
modern_debian_sources() {
  local codename uri
  # shellcheck disable=SC2016 # apt's variables
  apt-get indextargets --format '$(ORIGIN) $(LABEL) $(CODENAME) $(REPO_URI)' 'Identifier: Packages' |
    sed -nE 's/^Debian (Debian|Debian-Security) ([a-z-]+) (.*)$/\2 \3/p' | sort --unique |
    while read -r codename uri; do
      case $codename in
      *-security) codename=$MODERN_DEBIAN-security ;;
      *-*) continue ;;
      *) codename=$MODERN_DEBIAN ;;
      esac
      printf '%s\n' "Types: deb" "URIs: $uri" "Suites: $codename" "Components: main" \
        "Signed-By: $DEBIAN_KEYRING" ""
    done
}

# apt in a folder of its own, as if nothing were installed.
modern_apt_settings() {
  local folder=$1
  cat <<END
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
APT::Architectures { "$(dpkg --print-architecture)"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::Languages "none";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Dir::State "$folder";
Dir::State::status "$folder/status";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$folder/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
END
}

fetch_modern_nix() {
  local apt=$1 packages
  mkdir -p "$apt"/{lists/partial,cache/archives/partial,sources,debs}
  : >"$apt/status"
  modern_debian_sources >"$apt/sources/modern.sources"
  if ! [[ -s $apt/sources/modern.sources ]]; then
    # Which Debian a source has is in its lists, and a new machine has none.
    say "refreshing apt's lists, to learn which Debian this machine's sources have"
    as_root apt-get update --quiet || true
    modern_debian_sources >"$apt/sources/modern.sources"
  fi
  [[ -s $apt/sources/modern.sources ]] ||
    fail "apt's sources on this machine have no Debian whose $MODERN_DEBIAN could have Nix $MODERN_NIX" \
      "install Nix $MODERN_NIX_MINIMUM or newer from elsewhere: a nix on PATH is used instead"
  modern_apt_settings "$apt" >"$apt/apt.conf"
  apt-get --config-file "$apt/apt.conf" --quiet=2 update ||
    fail "apt could not read the package lists of Debian $MODERN_DEBIAN" \
      "read its message above; if it is about a key, update debian-archive-keyring"
  packages=$(apt-get --config-file "$apt/apt.conf" --simulate --yes install nix-bin | awk '$1 == "Inst" { print $2 }' |
    grep -E "$MODERN_NIX_PACKAGES" | grep -vE "$MODERN_NIX_OTHERS") ||
    fail "apt cannot solve the dependencies of nix-bin in Debian $MODERN_DEBIAN" "read its message above"
  # shellcheck disable=SC2086 # one word each
  (cd "$apt/debs" && apt-get --config-file "$apt/apt.conf" --quiet=2 download $packages) ||
    fail "apt could not fetch Nix $MODERN_NIX of Debian $MODERN_DEBIAN" "read its message above"
}

# unpack_modern_nix DEBS FOLDER TARGET: bin/ and lib/ in FOLDER, which will be moved to TARGET.
unpack_modern_nix() {
  local debs=$1 folder=$2 target=$3 deb libraries loader name found
  for deb in "$debs"/*.deb; do
    dpkg-deb --extract "$deb" "$folder/all"
  done
  # The loader finds the libraries in no folder but this.
  libraries=$(compgen -G "$folder/all/usr/lib/*-linux-gnu*")
  loader=$(compgen -G "$libraries/ld-linux*.so.*")
  mkdir "$folder/lib"
  # "libz.so.1 => /path (0x…)"
  while read -r name found; do
    [[ $found == "$libraries"/* ]] ||
      fail "Nix $MODERN_NIX of Debian $MODERN_DEBIAN needs $name, and no package that was fetched has it" \
        "install Nix $MODERN_NIX_MINIMUM or newer from elsewhere: a nix on PATH is used instead"
    cp --dereference "$found" "$folder/lib/$name"
  done < <("$loader" --library-path "$libraries" --list "$folder/all/usr/bin/nix" |
    awk '$2 == "=>" && $1 !~ /^\// { print $1, $3 }')
  cp --dereference "$loader" "$folder/lib/"
  mkdir "$folder/bin"
  cp --no-dereference "$folder"/all/usr/bin/nix{,-*} "$folder/bin/"
  # RPATH, not RUNPATH: it holds for the libraries' own libraries too.
  patchelf --set-interpreter "$target/lib/${loader##*/}" --force-rpath --set-rpath "$target/lib" "$folder/bin/nix"
  mkdir "$folder/libexec"
  cp "$folder/all/usr/bin/bash-static" "$folder/libexec/"
  rm -r "$folder/all"
}

install_modern_nix() {
  local work target=$TOOLS_DIR/nix-$MODERN_NIX version
  mkdir -p "$TOOLS_DIR"
  work=$TOOLS_DIR/nix-$MODERN_NIX.unfinished
  rm -rf "$work" "$target"
  mkdir "$work"
  fetch_modern_nix "$work/apt"
  mkdir "$work/nix"
  unpack_modern_nix "$work/apt/debs" "$work/nix" "$target"
  # Last: it marks the step as done.
  mv "$work/nix" "$target"
  rm -rf "$work"
  version=$("$target/bin/nix" --version) || {
    rm -rf "$target"
    fail "Nix $MODERN_NIX of Debian $MODERN_DEBIAN does not run here" \
      "install Nix $MODERN_NIX_MINIMUM or newer from elsewhere: a nix on PATH is used instead"
  }
  say "installed $version"
}
