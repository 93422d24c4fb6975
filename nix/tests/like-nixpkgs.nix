# A package set that has the doors of nixpkgs into itself. No derivation of it is ever built.
{ system }:

let
  package =
    name: passthru:
    derivation {
      inherit system name;
      builder = "/bin/false";
    }
    // passthru
    // {
      inherit passthru;
      override = _: package name passthru;
      overrideAttrs = _: package name passthru;
    };
  # Another one, whose packages are others.
  cross = whole (name: "${name}-riscv64");
  whole =
    named:
    let
      self = {
        pkgs = self;
        lib = {
          inherit (builtins) map;
          version = "26.05";
        };
        stdenv = package (named "stdenv-linux") {
          __bootPackages = cross;
          cc = self.gcc;
        };
        callPackage = function: function self;
        newScope = _: self.callPackage;
        buildPackages = self;
        targetPackages = self;
        __splicedPackages = self;
        fetchurl = _: package (named "source") { };
        pkgsStatic = cross;
        pkgsMusl = cross;
        pkgsi686Linux = throw "i686 Linux package set can only be used with the x86 family.";
        pkgsCross = { riscv64 = cross; broken = throw "no such system"; };
        gcc = package (named "gcc-14") { cc = package (named "gcc-unwrapped-14") { }; };
        git = package (named "git-2.51") { tests.fsck = package (named "git-fsck-test") { }; };
        gitAlias = self.git;
        python3 = package (named "python3-3.13") { pkgs = self.python3Packages; };
        python3Packages = {
          inherit (self) callPackage newScope lib stdenv;
          pkgs = self.python3Packages;
          buildPythonPackage = _: self.git;
          requests = package (named "python3.13-requests-2.32") { inherit (self) python3; };
        };
        xorg.xev = self.xev;
        xev = package (named "xev-1.2") { };
      };
    in
    self;
in
whole (name: name)
