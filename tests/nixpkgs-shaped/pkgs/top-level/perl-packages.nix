# Perl and its modules.
{ self }:
let
  inherit (self) lib stdenv;
  version = if stdenv.real == null then "5.40.3" else "${stdenv.real.perl.version}";
  interpreter = stdenv.mkDerivation {
    pname = "perl";
    version = "5.40.3";
    outputs = [ "out" "man" "devdoc" ];
    installPhase = stdenv.installReal "perl" "mkdir $out/bin; echo perl > $out/bin/perl";
    passthru = { inherit pkgs; withPackages = choose: stdenv.mkDerivation { name = "perl-5.40.3-env"; modules = choose pkgs; }; };
    meta = { description = "Standard implementation of the Perl 5 programming language"; mainProgram = "perl"; license = lib.licenses.gpl2Only; outputsToInstall = [ "out" "man" ]; };
  };
  buildPerlPackage = attrs: stdenv.mkDerivation ({
    name = "perl5.40.3-${attrs.pname}-${attrs.version}";
    outputs = [ "out" "devdoc" ];
    installPhase = "mkdir -p $out/lib/perl5/site_perl/${version}; echo 'package ${attrs.pname}; 1;' > $out/lib/perl5/site_perl/${version}/${attrs.pname}.pm";
    meta = { license = lib.licenses.gpl2Only; };
    needs = [ (toString interpreter) ];
  } // attrs);
  pkgs = {
    inherit buildPerlPackage;
    perl = interpreter;
    DBI = buildPerlPackage { pname = "DBI"; version = "1.647"; };
    libwwwperl = buildPerlPackage { pname = "libwww-perl"; version = "6.81"; };
    URI = buildPerlPackage { pname = "URI"; version = "5.34"; };
    # Two names that differ in case alone.
    JSON = buildPerlPackage { pname = "JSON"; version = "4.10"; };
    json = pkgs.JSON;
  }
  // self.scaledPerlModules buildPerlPackage;
in
{
  inherit interpreter;
}
