{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "iana-etc";
  version = "20260101";
  installPhase = "mkdir $out/etc; echo services > $out/etc/services; echo protocols > $out/etc/protocols";
  meta = { description = "IANA protocol and port number assignments"; license = lib.licenses.mit; };
}
