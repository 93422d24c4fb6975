{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "unrar";
  version = "7.2.6";
  meta = { description = "Utility for RAR archives"; license = lib.licenses.unfreeRedistributable; mainProgram = "unrar"; };
}
