{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "moreutils";
  version = "1.2";
  installPhase = "mkdir $out/bin; echo moreutils > $out/bin/moreutils";
  meta = { description = "The moreutils of this set"; license = lib.licenses.mit; mainProgram = "moreutils"; };
}
