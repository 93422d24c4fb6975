{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "openssl";
  version = "1.1.1w";
  outputs = [ "bin" "dev" "out" "man" "doc" ];
  meta = {
    license = lib.licenses.openssl;
    knownVulnerabilities = [ "OpenSSL 1.1 is reaching its end of life on 2023/09/11 and cannot be supported" ];
  };
}
