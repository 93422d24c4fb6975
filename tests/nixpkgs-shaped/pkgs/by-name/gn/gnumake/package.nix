{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "gnumake";
  version = "4.4.1";
  installPhase = stdenv.installReal "gnumake" "mkdir $out/bin; echo make > $out/bin/make";
  meta = { description = "Tool to control the generation of non-source files from sources"; license = lib.licenses.gpl3Plus; mainProgram = "make"; };
}
