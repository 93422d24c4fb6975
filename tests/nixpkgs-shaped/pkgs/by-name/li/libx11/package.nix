{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "libx11";
  version = "1.2";
  installPhase = "mkdir $out/bin; echo libx11 > $out/bin/libx11";
  meta = { description = "The libx11 of this set"; license = lib.licenses.mit; mainProgram = "libx11"; };
}
