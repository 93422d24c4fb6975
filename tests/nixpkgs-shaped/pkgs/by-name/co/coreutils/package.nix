{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "coreutils";
  version = "1.2";
  installPhase = stdenv.installReal "coreutils" "mkdir $out/bin; echo coreutils > $out/bin/coreutils";
  meta = { description = "The coreutils of this set"; license = lib.licenses.mit; mainProgram = "coreutils"; };
}
