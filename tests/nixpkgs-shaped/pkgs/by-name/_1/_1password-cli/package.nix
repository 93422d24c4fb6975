{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "1password-cli";
  version = "2.32.0";
  meta = { license = lib.licenses.unfree; mainProgram = "op"; };
}
