{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "typescript";
  version = "5.9";
  installPhase = "mkdir -p $out/lib/node_modules/typescript; echo 'exports.version = 5.9' > $out/lib/node_modules/typescript/index.js";
  meta = { description = "Superset of JavaScript that compiles to clean JavaScript output"; license = lib.licenses.asl20; };
}
