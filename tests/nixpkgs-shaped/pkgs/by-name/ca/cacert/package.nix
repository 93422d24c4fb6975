{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "nss-cacert";
  version = "3.121";
  outputs = [ "out" "unbundled" "p11kit" ];
  installPhase = "mkdir -p $out/etc/ssl/certs; echo roots > $out/etc/ssl/certs/ca-bundle.crt";
  meta = { description = "Bundle of X.509 certificates of public Certificate Authorities"; license = lib.licenses.mit; };
}
