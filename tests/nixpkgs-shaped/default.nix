# A package set shaped like nixpkgs of 2026, for tests and benches. It has no code of nixpkgs.
#
# What of nixpkgs' shape is here, and where:
#
#   default.nix                 refuses too old a Nix (lib/minfeatures.nix), then is a function of `system`,
#                               `config`, `overlays` and more
#   lib/                        fixed points, callPackage, override and overrideAttrs, licences
#   pkgs/stdenv/                mkDerivation: outputs, passthru, meta.position; check-meta.nix refuses what
#                               is unfree, insecure, broken or for other systems, in today's words
#   pkgs/by-name/<xx>/<name>/package.nix
#                               most packages
#   pkgs/top-level/             all-packages.nix (what needs arguments), aliases.nix (renamed and removed
#                               names), python-packages.nix, perl-packages.nix, scaled.nix (a generator)
#
# Doors to the same packages: `pkgs`, `buildPackages`, `targetPackages`, `pkgsCross.<system>`, `pkgsStatic`,
# `__splicedPackages`, `callPackage` and `override` of every package, `python3.pkgs`, `python3Packages`,
# `python313Packages`, `python3.withPackages`, `perl.pkgs`, `perlPackages`, `perl540Packages`, `xorg`,
# `<package>.passthru.tests`.
#
#   attribute         what is special
#   hello             nothing; with a test in passthru
#   git               outputs out, doc, man; `gitMinimal` is an override, `gitFull` another
#   curl              outputs bin (the default), dev, out, man; meta.outputsToInstall
#   bashInteractive   also `bash`, by an alias `bashInteractive_5`
#   cacert            one file, etc/ssl/certs/ca-bundle.crt
#   iana-etc          etc/services
#   jdk               `bin` is a link into lib/openjdk; `jdk21` and `openjdk` are the same package
#   neovim            wraps `neovim-unwrapped`, which is reachable as `neovim.unwrapped`
#   unrar             unfree; `steam` has two licences, one of them unfree
#   openssl_1_1       insecure (knownVulnerabilities)
#   oldtool           broken
#   macos-only        for another system
#   wrapper           allowSubstitutes = false, preferLocalBuild = true (as writeText and the like)
#   wrong             can't be evaluated, by an error that Nix code can't catch; `endless` recurses
#   python2, nodejs_14, docker_24 …     names that throw (aliases.nix)
#   xorg.xev          `xev` at the top, in `xorg` under its old name
#   _1password        a name that begins with a digit, `_1password-cli`
#   fails             its build fails and says why
#
#   glibc             the loader in `lib` of `out`, which is not the installed output; it reads no folder of the image
#   gcc-unwrapped     libstdc++ in the output lib, libgcc_s in libgcc
#   tzdata            the zones in `out`, which is not the installed output
#   stdenv            a package without programs, beside its functions; `stdenv.cc` is the compiler
#
#   ncurses, tzdata, dejavu_fonts, glibcLocales, typescript    folders that variables have to name
#   requests          imports its modules, which import others; found by nix-support/propagated-build-inputs
#
# `real.nix` may have real packages in place of some that are none (bash, coreutils, nodejs, perl, python3; and
# `python`, its version; git, and the members of `ci` and `builder`), so that containers can be run.
#
# Every package is made by the machine's shell in milliseconds. `salt.nix` is a text in every derivation:
# with another one nothing was ever built. `scale.nix` is the number of generated attributes; 0 has about
# 100 attributes, 100000 is as large as nixpkgs.
let
  missing = map ({ description, ... }: description) (import ./lib/minfeatures.nix).missing;
in
if missing != [ ] then
  abort ''

    This version of Nixpkgs requires an implementation of Nix with the following features:
    - ${builtins.concatStringsSep "\n- " missing}

    You are evaluating with Nix ${builtins.nixVersion or "(too old to know)"}, please upgrade:

    - Alternatively, with Nix > 2.0 `nix upgrade-nix' can be used to imperatively
      upgrade Nix. You may use `nix-env --version' to check which version you have.
  ''
else
  import ./pkgs/top-level
