# Attribute paths -> what a package set has there, without building anything or
# writing a derivation: for the index of the package set, and for those who expand
# patterns over its names.
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
# With `--arg describe true`, packages come with all that is known of them without
# building them: outputs, name, licences … That takes a hundred times as long.
#
# Only builtins are used, so any package set will do.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system ? builtins.currentSystem,
  # JSON of what is allowed though nixpkgs refuses it (NIXGATE_NIXPKGS_CONFIG).
  config ? "{}",
  # JSON list of attribute paths, each a list of names as the set spells them.
  paths,
  # Whether to tell of packages more than that they are some.
  describe ? false,
}:

let
  inherit (builtins)
    attrNames
    deepSeq
    foldl'
    fromJSON
    isAttrs
    isString
    listToAttrs
    seq
    stringLength
    substring
    tryEval
    ;

  # Of sets like the whole one, nothing is listed (packages.nix).
  inherit (import ./packages.nix { inherit source system config; })
    packages
    isWhole
    isPackage
    installed
    outputPath
    about
    orElse
    ;

  refused = { kind = "refused"; };

  inspect =
    path: value:
    if !isAttrs value then
      { kind = "other"; }
    else if isPackage value then
      if describe then described value else { kind = "package"; }
    else if path != [ ] && isWhole value then
      { kind = "other"; }
    else
      {
        kind = "set";
        names = attrNames value;
        # How nixpkgs says that there are packages inside of it.
        recurse = orElse false (value.recurseForDerivations or false == true);
      };

  # What can be built has paths; the licence, marks and platforms of the rest are
  # why it is refused.
  described =
    drv:
    let
      paths = {
        inherit (drv) drvPath;
        installed = installed drv;
        outputs = listToAttrs (
          map (name: {
            inherit name;
            value = outputPath drv name;
          }) (drv.outputs or [ "out" ])
        );
      };
      meta = drv.meta or { };
      position = orElse null (meta.position or null);
      said = orElse { } (about drv);
      built = tryEval (deepSeq paths paths);
    in
    {
      kind = if built.success then "package" else "unusable";
      broken = orElse true (meta.broken or false == true);
      position = if isString position then withoutSource position else null;
    }
    // said
    // (if built.success then built.value else { });

  # A position in the package set's files, not in the store.
  withoutSource =
    position:
    let
      prefix = toString source + "/";
      length = stringLength prefix;
    in
    if substring 0 length position == prefix then
      substring length (stringLength position) position
    else
      position;

  look =
    path:
    let
      # A name that is not there can't be caught, so it is asked for first.
      at = foldl' (
        here: name: if isAttrs here && here ? ${name} then here.${name} else throw "not there"
      ) packages path;
      seen = inspect path at;
      # What throws does so when it is looked at.
      attempt = tryEval (deepSeq seen seen);
    in
    if attempt.success then attempt.value else refused;
in
# What is wrong with the package set as such is an error.
seq packages (map look (fromJSON paths))
