{ lib, stdenv, writeText }:
stdenv.mkDerivation (self: {
  pname = "hello";
  version = "2.12.3";
  installPhase = "mkdir $out/bin; echo hello > $out/bin/hello";
  passthru.tests.run = writeText "hello-test" "it says ${self.pname or "hello"}";
  meta = {
    description = "Program that produces a familiar, friendly greeting";
    homepage = "https://www.gnu.org/software/hello/manual/";
    license = lib.licenses.gpl3Plus;
    mainProgram = "hello";
  };
})
