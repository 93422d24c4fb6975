{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "curl";
  version = "8.18.0";
  outputs = [ "bin" "dev" "out" "man" ];
  installPhase = "mkdir $bin/bin; echo curl $out > $bin/bin/curl; echo lib > $out/lib; echo $out > $dev/lib; echo man > $man/man";
  meta = { description = "Command line tool for transferring files with URL syntax"; license = lib.licenses.mit; mainProgram = "curl"; outputsToInstall = [ "bin" "man" ]; };
}
