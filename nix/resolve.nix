# Requested names -> derivations.
#
# An image name arrives as lowercase words ("python3packages.requests"); a Nix
# package set has attributes in mixed case, nested, lazy, and some of them
# throw when looked at. This expression walks each name through the set and
# reports what it found, one record per name, in the order of the names:
#
#   names     '["git","1password","lib","nope"]'
#                │       │         │       └── unknown
#                │       │         └────────── not-a-derivation
#                │       └──────────────────── refused (unfree: evaluation throws)
#                └──────────────────────────── derivation, with its outputs
#
#   nix-instantiate --eval --strict --json --read-write-mode resolve.nix \
#     --argstr source PATH --argstr system x86_64-linux --argstr names JSON
#
# A name that is refused is looked at again by itself with `--arg explain true`:
# then its throw is not caught, and Nix prints what it says.
#
# Only builtins are used, so any package set will do. `--read-write-mode` makes every `drvPath` a real .drv;
# without it, the store stays as it is.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system ? builtins.currentSystem,
  # JSON of what is allowed though nixpkgs refuses it, and of the overlays' files
  # (NIXGATE_NIXPKGS_CONFIG).
  config ? "{}",
  # JSON list of names; each is an attribute path, its components joined by dots.
  # With none, it is found out whether the package set as such can be evaluated.
  names,
  # Whether what throws is to end the evaluation.
  explain ? false,
}:

let
  inherit (builtins)
    any
    attrNames
    concatStringsSep
    deepSeq
    elem
    filter
    fromJSON
    head
    isAttrs
    isString
    listToAttrs
    mapAttrs
    match
    seq
    split
    stringLength
    substring
    tail
    tryEval
    ;

  attempt =
    if explain then
      value: {
        success = true;
        inherit value;
      }
    else
      tryEval;

  inherit (import ./packages.nix { inherit source system config; })
    packages
    takesOverlays
    isWhole
    isPackage
    lowercase
    about
    installed
    orElse
    outputPath
    ;

  # A value with what is worth keeping of it while several names pass: lowering
  # the case of all of a large set's attributes takes longer than all else.
  node = value: {
    inherit value;
    isSet = attempt (isAttrs value);
    # Where several attributes differ in case alone, the first of attrNames,
    # which is sorted, and of equal names listToAttrs takes the first.
    byLowercase = listToAttrs (
      map (attribute: {
        name = lowercase attribute;
        value = attribute;
      }) (attrNames value)
    );
    children = mapAttrs (_: node) value;
  };

  # The attribute that `component` means in a node, as a list of one name or
  # none. Names in image references can't hold uppercase, and Nix identifiers
  # can't begin with a digit: hence the two further chances.
  spelling =
    here: component:
    let
      written =
        spelled:
        if here.value ? ${spelled} then
          [ spelled ]
        else if here.byLowercase ? ${spelled} then
          [ here.byLowercase.${spelled} ]
        else
          [ ];
      asWritten = written component;
    in
    if asWritten != [ ] || match "[0-9].*" component == null then
      asWritten
    else
      written "_${component}";

  # Names that may have been meant by `component`, which a node does not have: those that begin as it
  # does and are about as long. Which of them are most like it is for the caller to find out.
  near =
    here: component:
    let
      start = substring 0 1 component;
      length = stringLength component;
      isNear =
        name:
        let
          longer = stringLength name - length;
        in
        substring 0 1 name == start && longer <= 2 && longer >= -2;
    in
    filter isNear (attrNames here.byLowercase);

  # What a derivation has for its own build, or says of itself. Some of it are
  # derivations too, such as `src`, and none of it is a package, unless it is
  # passed on as well: so is the compiler that `gcc` wraps, `gcc.cc`.
  ownAttributes = listToAttrs (
    map (name: { inherit name; value = null; }) [
      "all" "args" "builder" "drvAttrs" "drvPath" "inputDerivation" "meta" "name" "outPath"
      "outputName" "outputs" "override" "overrideAttrs" "overrideDerivation" "passthru" "pname"
      "system" "type" "version"
    ]
  );
  isOwn =
    drv: name:
    ownAttributes ? ${name} || drv.drvAttrs or { } ? ${name} && !(drv.passthru or { } ? ${name});

  outputNames = drv: drv.outputs or [ "out" ];

  # How an attribute path is written in an image's name.
  path = attribute: lowercase (concatStringsSep "." attribute);

  # Follows `components` from a node; `attribute` is the path found so far, and
  # `passed` the packages on it. Every step may meet a throw, which must not
  # hide the other names.
  #
  # A path may lead through a package: to one of its outputs, where it ends, or
  # to what it passes on (`stdenv.cc`, `python3.pkgs.requests`). Each output has
  # all attributes of the package again, and packages pass on each other, so
  # that a package would have names without end. So nothing is below an output,
  # no path leads through one package twice, and what a package is built from
  # is not looked at.
  walk =
    passed: attribute: here: components:
    let
      inherit (here) isSet value;
      component = head components;
      found = spelling here component;
      next = head found;
      isPackageHere = attempt (isSet.value && isPackage value);
      isDoor = attempt (attribute != [ ] && !isThrough && isWhole value);
      isThrough = isPackageHere.success && isPackageHere.value;
      same = attempt (any (other: other.drvPath == value.drvPath) passed);
      isOutput = elem next (outputNames value);
      nearHere = map (name: path (attribute ++ [ name ]));
      onwards =
        if !isThrough then
          walk passed (attribute ++ [ next ]) here.children.${next} (tail components)
        else if isOutput && tail components == [ ] then
          inspect (attribute ++ [ next ]) value next
        else if isOutput then
          unknown (nearHere [ next ])
        else if isOwn value next then
          unknown ([ (path attribute) ] ++ nearHere (outputNames value))
        else
          walk (passed ++ [ value ]) (attribute ++ [ next ]) here.children.${next} (tail components);
      step = attempt (deepSeq onwards onwards);
    in
    if !isSet.success || !isDoor.success || isThrough && !same.success then
      { state = "refused"; }
    else if isDoor.value then
      unknown [ ]
    else if isThrough && same.value then
      unknown [ ]
    else if components == [ ] then
      inspect attribute value null
    else if !isSet.value then
      unknown [ ]
    else if found == [ ] then
      unknown (nearHere (near here component))
    else if step.success then
      step.value
    else
      { state = "refused"; };

  unknown = near: {
    state = "unknown";
    inherit near;
  };

  # `output` is the one that the path names, if it does.
  inspect =
    attribute: value: output:
    let
      isDerivation = attempt (isAttrs value && isPackage value);
      record = describe attribute value output;
      # It looks no deeper than the outermost value by itself.
      described = attempt (deepSeq record record);
    in
    if isDerivation.success && !isDerivation.value then
      {
        state = "not-a-derivation";
        # "lambda", "set", "string" …
        type = builtins.typeOf value;
      }
    else if isDerivation.success && described.success then
      described.value
    else
      { state = "refused"; };

  # All that is said of an output is what its package says: the output may lack
  # what was added to the package, such as its licence.
  describe =
    attribute: drv: output:
    {
      state = "derivation";
      inherit attribute;
      inherit (drv) drvPath;
      outputs = map (name: {
        inherit name;
        path = outputPath drv name;
      }) (if output != null then [ output ] else installed drv);
      # By these it is known under whichever name.
      identity = orElse [ ] (
        map (outputPath drv) (if output != null then [ output ] else outputNames drv)
      );
    }
    // about drv;

  root = node packages;
  resolve = name: { inherit name; } // walk [ ] [ ] root (filter isString (split "\\." name));
  wanted = fromJSON names;
in
{
  inherit takesOverlays;
  packages = if wanted == [ ] then seq packages [ ] else map resolve wanted;
}
