{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "xev";
  version = "1.2";
  installPhase = "mkdir $out/bin; echo xev > $out/bin/xev";
  meta = { description = "The xev of this set"; license = lib.licenses.mit; mainProgram = "xev"; };
}
