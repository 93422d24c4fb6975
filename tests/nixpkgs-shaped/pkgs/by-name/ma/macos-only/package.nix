{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "macos-only";
  version = "1";
  meta = { license = lib.licenses.mit; platforms = [ "aarch64-darwin" "x86_64-darwin" ]; };
}
