{ stdenv, hello }:
stdenv.mkDerivation {
  name = "wrapper";
  allowSubstitutes = false;
  preferLocalBuild = true;
  installPhase = "mkdir $out/bin; ln -s ${hello}/bin/hello $out/bin/wrapper";
}
