# What by-name can't say: packages with arguments, sets of packages, and what is wrong.
self: super:
let
  inherit (self) lib stdenv callPackage;
  python = import ./python-packages.nix { inherit self; };
  perl = import ./perl-packages.nix { inherit self; };
in
{
  bash = self.bashInteractive;
  gitMinimal = self.git.override { withManual = false; };
  gitFull = self.git.override { withEverything = true; };
  gitSVN = self.git.override { withSvn = true; };

  python3 = python.interpreter;
  python313 = self.python3;
  python3Packages = lib.dontRecurseIntoAttrs self.python313Packages;
  python313Packages = lib.recurseIntoAttrs self.python3.pkgs;
  python3Minimal = self.python3.override { minimal = true; };

  perl = perl.interpreter;
  perl540 = self.perl;
  perlPackages = lib.recurseIntoAttrs self.perl.pkgs;
  perl540Packages = self.perlPackages;

  xorg = lib.recurseIntoAttrs {
    inherit (self) xev;
    libX11 = self.libx11;
    xorgproto = self.hello.overrideAttrs { pname = "xorgproto"; };
  };

  # Helpers: functions and sets that are no packages.
  writeText = name: text: stdenv.mkDerivation {
    inherit name text;
    allowSubstitutes = false;
    preferLocalBuild = true;
    passAsFile = [ "text" ];
    installPhase = "rmdir $out; cp $textPath $out";
  };
  fetchFromGithub = throw "You meant fetchFromGitHub, with a capital H";
  testers = { runNixOSTest = _: throw "no tests here"; };
  maintainers = { nobody = { email = "nobody@example.org"; }; };

  # Errors that Nix code can't catch.
  wrong = (callPackage ({ stdenv }: stdenv.mkDerivation { pname = "wrong"; version = { }.missing; }) { });
  wrong-argument = callPackage ({ stdenv, notThere }: stdenv.mkDerivation { name = "x"; }) { };
  endless = let x = x; in x;
}
