# The fixed point of all overlays.
{
  system ? builtins.currentSystem,
  localSystem ? { inherit system; },
  crossSystem ? localSystem,
  config ? { },
  overlays ? [ ],
  crossOverlays ? [ ],
  ...
}@arguments:
let
  lib = import ../../lib;
  configuration = if builtins.isFunction config then config { inherit pkgs lib; } else config;
  system' = crossSystem.system or localSystem.system;
  stdenv = import ../stdenv {
    inherit lib;
    config = configuration;
    system = system';
    salt = import ../../salt.nix;
    real = import ../../real.nix;
  };

  # Doors to this set.
  doors = self: {
    inherit lib stdenv;
    config = configuration;
    system = system';
    pkgs = self;
    buildPackages = self;
    targetPackages = self;
    __splicedPackages = self;
    pkgsBuildBuild = self;
    pkgsStatic = self;
    pkgsCross = lib.genAttrs [ "aarch64-multiplatform" ] (
      _: import ./. (arguments // { crossSystem = { system = "aarch64-linux"; }; })
    );
    callPackage = lib.callPackageWith (self // self.xorg);
    callPackages = lib.callPackageWith self;
    newScope = extra: lib.callPackageWith (self // extra);
    fetchurl = { url, ... }: throw "the shaped set fetches nothing, not even ${url}";
    appendOverlays = more: import ./. (arguments // { overlays = overlays ++ more; });
    extend = overlay: import ./. (arguments // { overlays = overlays ++ [ overlay ]; });
  };

  pkgs = lib.fix (
    lib.compose doors (
      [
        (import ./by-name-overlay.nix ../by-name)
        (import ./all-packages.nix)
        (import ./scaled.nix (import ../../scale.nix))
      ]
      ++ lib.optional (configuration.allowAliases or true) (import ./aliases.nix)
      ++ overlays
    )
  );
in
pkgs
