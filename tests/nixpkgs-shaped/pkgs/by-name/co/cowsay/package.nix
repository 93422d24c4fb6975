{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "cowsay";
  version = "1.2";
  installPhase = "mkdir $out/bin; echo cowsay > $out/bin/cowsay";
  meta = { description = "The cowsay of this set"; license = lib.licenses.mit; mainProgram = "cowsay"; };
}
