{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "ripgrep";
  version = "1.2";
  installPhase = "mkdir $out/bin; echo ripgrep > $out/bin/ripgrep";
  meta = { description = "The ripgrep of this set"; license = lib.licenses.mit; mainProgram = "ripgrep"; };
}
