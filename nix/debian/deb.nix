# One derivation from one or more .debs, laid out as Nix packages are:
#
#   git_2.39.deb                       /nix/store/…-git-2.39.5
#     usr/bin/git            ──►         bin/git      loader, RPATH: store paths
#     usr/share/git-core                 share/git-core
#     lib/x86_64-linux-gnu               lib/x86_64-linux-gnu
#
# Every mention of another package becomes its store path, so Nix finds the
# closure by scanning the output, as it does for what it compiles itself.
#
# The tools are those of the machine (dpkg-deb, tar, patchelf, bash), and so is
# the platform: an arm64 .deb is taken apart on whatever machine runs the build.
{
  # "amd64" or "arm64": Debian's name of the architecture.
  architecture,
  # The multiarch folder, such as "x86_64-linux-gnu".
  triplet,
}:

let
  inherit (builtins)
    attrValues
    concatStringsSep
    filter
    isString
    split
    ;

  # A store name holds neither ":" nor "~", which Debian's versions may.
  storeName = text: concatStringsSep "-" (filter isString (split "[^a-zA-Z0-9+._?=-]+" text));

  fetch =
    name: package:
    import <nix/fetchurl.nix> {
      inherit (package) url sha256;
      name = storeName "${name}_${package.version}_${architecture}.deb";
    };
in
{
  # Name and version of the result; the version is upstream's.
  pname,
  version,
  # Debian package name -> entry of the index: all are unpacked into one output.
  packages,
  # The version of the set's Python, as in "3.11".
  python,
  # Derivations to look for libraries, links and interpreters in, nearest first.
  dependencies,
  # Bash snippet for what only this package needs; see unpack.sh for its helpers.
  fixup ? "",
}:

derivation {
  name = storeName "${pname}-${version}";
  inherit
    pname
    version
    triplet
    python
    dependencies
    fixup
    ;
  system = builtins.currentSystem;
  builder = "/bin/bash";
  args = [ ./unpack.sh ];
  PATH = "/usr/bin:/bin";
  debs = attrValues (builtins.mapAttrs fetch packages);
  # The linker refuses pages smaller than the kernel's; arm64 has up to 64 KiB.
  pageSize = if architecture == "arm64" then 65536 else 4096;
  # Unpacking is quicker than asking another machine to do it.
  preferLocalBuild = true;
}
