{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "nodejs_22";
  version = "1.2";
  installPhase = stdenv.installReal "nodejs" "mkdir $out/bin; echo nodejs_22 > $out/bin/nodejs_22";
  meta = { description = "The nodejs_22 of this set"; license = lib.licenses.mit; mainProgram = "nodejs_22"; };
}
