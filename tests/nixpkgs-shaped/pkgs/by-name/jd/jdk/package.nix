{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "openjdk";
  version = "21.0.12+2";
  installPhase = "mkdir -p $out/lib/openjdk/bin; echo java > $out/lib/openjdk/bin/java; ln -s lib/openjdk/bin $out/bin";
  passthru.home = "lib/openjdk";
  meta = { description = "Open-source Java Development Kit"; license = lib.licenses.gpl2Only; mainProgram = "java"; };
}
