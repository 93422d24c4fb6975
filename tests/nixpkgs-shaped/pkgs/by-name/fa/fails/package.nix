{ stdenv }:
stdenv.mkDerivation {
  pname = "fails";
  version = "1";
  installPhase = "echo this build fails on purpose >&2; exit 1";
}
