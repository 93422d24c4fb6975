# The tools of nixpkgs' standard environment in one tree of links, so that an
# image that names `stdenv` can compile. `stdenv.cc` is the compiler alone.
{ packages }:

let
  cc = packages.gcc;
  stdenv = derivation {
    name = "stdenv-${cc.version}";
    pname = "stdenv";
    inherit (cc) version;
    system = builtins.currentSystem;
    builder = "/bin/bash";
    PATH = "/usr/bin:/bin";
    preferLocalBuild = true;
    # The same list as nixpkgs' `initialPath`, and the compiler.
    tools = with packages; [
      cc
      bash
      bzip2
      coreutils
      diffutils
      file
      findutils
      gawk
      gnugrep
      gnumake
      gnused
      gnutar
      gzip
      patch
      xz
    ];
    args = [
      "-c"
      ''
        set -euo pipefail
        mkdir -p $out/bin
        for tool in $tools; do
          for program in $tool/bin/*; do
            [[ -e $out/bin/''${program##*/} ]] || ln -s "$program" $out/bin/
          done
        done
      ''
    ];
  };
in
stdenv
// {
  inherit cc;
  meta = {
    outputsToInstall = [ "out" ];
  };
}
