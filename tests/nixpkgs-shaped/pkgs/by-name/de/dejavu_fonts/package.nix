{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "dejavu-fonts";
  version = "2.37";
  installPhase = "mkdir -p $out/share/fonts/truetype; echo font > $out/share/fonts/truetype/DejaVuSans.ttf";
  meta = { description = "Typeface family based on the Bitstream Vera fonts"; license = lib.licenses.mit; };
}
