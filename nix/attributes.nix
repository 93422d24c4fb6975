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
# With `--argstr describe WORD`, packages come with all that is known of them without
# building them: outputs, name, licences … That takes a hundred times as long, and some
# packages end the evaluation, by errors that Nix code can't catch or for want of
# memory. So each answer is told at once: by a trace, with that word before it, which
# no package can know.
#
# Only builtins are used, so any package set will do.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system ? builtins.currentSystem,
  # JSON of what is allowed though nixpkgs refuses it, and of the overlays' files
  # (NIXGATE_NIXPKGS_CONFIG).
  config ? "{}",
  # JSON list of attribute paths, each a list of names as the set spells them.
  paths,
  # The word before each answer; none answers with a list.
  describe ? "",
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
    toJSON
    trace
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
      if describe == "" then { kind = "package"; } else described value
    else if path != [ ] && isWhole value then
      { kind = "other"; }
    else
      {
        kind = "set";
        names = attrNames value;
        # How nixpkgs says that there are packages inside of it.
        recurse = orElse false (value.recurseForDerivations or false == true);
      };

  # What can be built has paths. The licence and the marks of the rest may say why
  # it can't.
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
      said = {
        broken = orElse true (meta.broken or false == true);
        position = if isString position then withoutSource position else null;
      }
      // about drv;
      whole = paths // said;
    in
    if (tryEval (deepSeq whole whole)).success then
      { kind = "package"; } // whole
    else
      { kind = "unusable"; } // orElse { } said;

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
seq packages (
  if describe == "" then
    map look (fromJSON paths)
  else
    foldl' (done: path: seq (trace "${describe} ${toJSON (look path)}" done) done) null (fromJSON paths)
)
