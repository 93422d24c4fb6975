# As in nixpkgs, the zones are not in the output that is installed.
{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "tzdata";
  version = "2026a";
  outputs = [ "out" "bin" "man" "dev" ];
  installPhase =
    "mkdir -p $bin/bin; echo zic > $bin/bin/zic; "
    + (
      if stdenv.real == null then
        "mkdir -p $out/share/zoneinfo/Europe; echo Berlin > $out/share/zoneinfo/Europe/Berlin"
      else
        "mkdir $out/share; cp -r ${stdenv.real.tzdata}/share/zoneinfo $out/share"
    );
  meta = { description = "Database of current and historical time zones"; license = lib.licenses.mit; };
}
