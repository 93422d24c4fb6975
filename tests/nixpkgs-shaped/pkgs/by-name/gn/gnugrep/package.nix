{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "gnugrep";
  version = "1.2";
  installPhase = stdenv.installReal "gnugrep" "mkdir $out/bin; echo gnugrep > $out/bin/gnugrep";
  meta = { description = "The grep of this set"; license = lib.licenses.gpl3Plus; };
}
