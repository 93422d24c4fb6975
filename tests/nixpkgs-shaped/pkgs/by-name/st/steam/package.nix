{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "steam";
  version = "1.0.0.85";
  meta = { description = "Digital distribution platform"; license = [ lib.licenses.mit lib.licenses.unfree ]; };
}
