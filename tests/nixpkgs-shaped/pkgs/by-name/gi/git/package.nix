{ lib, stdenv, curl, perl, withManual ? true, withSvn ? false, withEverything ? false }:
stdenv.mkDerivation {
  pname = "git" + (if withEverything then "-with-svn" else if withSvn then "-svn" else if withManual then "" else "-minimal");
  version = "2.54.0";
  outputs = [ "out" "doc" ] ++ lib.optional withManual "man";
  needs = [ (toString curl) (toString perl) ];
  installPhase = stdenv.installReal "git" "mkdir $out/bin; echo git $needs > $out/bin/git" + "; echo doc > $doc/doc";
  meta = { description = "Distributed version control system"; license = lib.licenses.gpl2Only; mainProgram = "git"; };
}
