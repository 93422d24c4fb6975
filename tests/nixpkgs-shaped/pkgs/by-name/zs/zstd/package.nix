{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "zstd";
  version = "1.2";
  installPhase = stdenv.installReal "zstd" "mkdir $out/bin; echo zstd > $out/bin/zstd";
  meta = { description = "The zstd of this set"; license = lib.licenses.gpl3Plus; };
}
