{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "oldtool";
  version = "0.1";
  meta = { license = lib.licenses.mit; broken = true; };
}
