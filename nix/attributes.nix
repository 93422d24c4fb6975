# Attribute paths -> what a package set has there, without building or even
# instantiating anything: for those who expand patterns over its names.
#
#   paths     '[[],["python3Packages"],["git"],["lib","version"]]'
#               │     │                   │       └── other
#               │     │                   └────────── package
#               │     └────────────────────────────── set, with its names
#               └──────────────────────────────────── set: the package set itself
#
#   nix-instantiate --eval --strict --json attributes.nix \
#     --argstr source PATH --argstr system x86_64-linux --argstr paths JSON
#
# A value is looked at as far as it takes to tell what it is, and what throws
# on the way is "refused"; the names of a set are listed without looking at
# what they name. So a set with a thousand broken members can be listed, two
# levels deep or deeper, and costs no more than what is asked for.
#
# Only builtins are used, so any package set will do, and the file can be
# copied anywhere.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system ? builtins.currentSystem,
  # JSON of what is allowed though nixpkgs refuses it (NIXGATE_NIXPKGS_CONFIG).
  config ? "{}",
  # JSON list of attribute paths, each a list of names as the set spells them.
  paths,
}:

let
  inherit (builtins)
    attrNames
    elem
    filter
    foldl'
    fromJSON
    functionArgs
    intersectAttrs
    isAttrs
    isFunction
    parseDrvName
    length
    tryEval
    ;

  # Lists for nixpkgs, which asks by a name without version, and by one with it.
  configuration =
    let
      written = fromJSON config;
      unfree = written.allowUnfreePackages or [ ];
      insecure = written.permittedInsecurePackages or [ ];
    in
    (
      if unfree == [ ] then
        { }
      else
        {
          allowUnfreePredicate =
            package: elem (package.pname or (parseDrvName package.name).name) unfree;
        }
    )
    // (if insecure == [ ] then { } else { permittedInsecurePackages = insecure; });

  # As in resolve.nix: a set must be the same to both.
  packages =
    let
      imported = import source;
      arguments = {
        inherit system;
        config = configuration;
        overlays = [ ];
      };
      accepted = functionArgs imported;
    in
    if !isFunction imported then
      imported
    else if accepted == { } then
      imported { inherit system; }
    else
      imported (intersectAttrs accepted arguments);

  # As in resolve.nix: what is a door there is none of our business.
  marks = filter (name: packages ? ${name}) [
    "pkgs" "lib" "stdenv" "callPackage" "newScope" "buildPackages" "fetchurl"
  ];
  isWhole =
    value: length marks > 3 && isAttrs value && builtins.all (name: value ? ${name}) marks;

  refused = { kind = "refused"; };

  inspect =
    path: value:
    if !isAttrs value then
      { kind = "other"; }
    else if value.type or null == "derivation" then
      { kind = "package"; }
    else if path != [ ] && isWhole value then
      { kind = "other"; }
    else
      {
        kind = "set";
        names = attrNames value;
      };

  look =
    path:
    let
      # A name that is not there can't be caught, so it is asked for first.
      at = foldl' (
        here: name: if isAttrs here && here ? ${name} then here.${name} else throw "not there"
      ) packages path;
      seen = inspect path at;
      # What throws does so when it is looked at: here for its kind.
      attempt = tryEval (builtins.seq seen.kind seen);
    in
    if attempt.success then attempt.value else refused;
in
# What is wrong with the package set as such is an error.
builtins.seq packages (map look (fromJSON paths))
