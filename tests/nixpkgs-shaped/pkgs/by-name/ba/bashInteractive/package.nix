{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "bash-interactive";
  version = "5.3p9";
  outputs = [ "out" "dev" "man" "doc" "info" ];
  installPhase = stdenv.installReal "bash" "mkdir $out/bin; echo bash > $out/bin/bash; ln -s bash $out/bin/sh";
  meta = { description = "GNU Bourne-Again Shell"; license = lib.licenses.gpl3Plus; mainProgram = "bash"; };
}
