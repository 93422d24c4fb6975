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
# Only builtins are used, so any package set will do, and the file can be
# copied anywhere. `--read-write-mode` makes every `drvPath` a real .drv.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system ? builtins.currentSystem,
  # JSON of what is allowed though nixpkgs refuses it (NIXGATE_NIXPKGS_CONFIG).
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
    concatMap
    concatStringsSep
    deepSeq
    elem
    filter
    fromJSON
    functionArgs
    head
    intersectAttrs
    isAttrs
    isFunction
    isList
    isString
    length
    listToAttrs
    mapAttrs
    match
    parseDrvName
    replaceStrings
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

  packages =
    let
      imported = import source;
      # Without `config` and `overlays` nixpkgs would read those of the user
      # who happens to run the evaluation.
      arguments = {
        inherit system;
        config = configuration;
        overlays = [ ];
      };
      accepted = functionArgs imported;
    in
    if !isFunction imported then
      imported
    # `args: …` names no argument, and neither does `{ ... }: …`.
    else if accepted == { } then
      imported { inherit system; }
    else
      imported (intersectAttrs accepted arguments);

  # Whether a value is a whole package set: the one of the images, or one like it.
  # nixpkgs has many, each with all packages: `pkgs`, `buildPackages`, `pkgsStatic`,
  # `pkgsCross.riscv64`, `stdenv.__bootPackages`, and each has them all again. They
  # are doors: a package would have names without end, and a policy that denies one
  # of them would be passed by the others. A set is known by what every nixpkgs has
  # at its top; scopes such as `python3Packages` have some of it and never all. A set
  # that is not like nixpkgs has no such doors.
  marks = filter (name: packages ? ${name}) [
    "pkgs" "lib" "stdenv" "callPackage" "newScope" "buildPackages" "fetchurl"
  ];
  isWhole =
    value: length marks > 3 && isAttrs value && builtins.all (name: value ? ${name}) marks;

  characters = string: filter (character: character != "" && isString character) (split "" string);
  lowercase = replaceStrings (characters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
    characters "abcdefghijklmnopqrstuvwxyz"
  );

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

  isPackage = value: value.type or null == "derivation";
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
    let
      meta = drv.meta or { };
      parsed = parseDrvName drv.name;
      default = drv.outputName or "out";
      # What a Nix user would get from installing the attribute: `git.doc`
      # names its output, `git` leaves the choice to the package.
      outputs =
        if output != null then
          [ output ]
        else if drv.outputSpecified or false then
          [ default ]
        else
          meta.outputsToInstall or [ default ];
    in
    {
      state = "derivation";
      inherit attribute;
      inherit (drv) drvPath;
      outputs = map (name: {
        inherit name;
        # A derivation with one output may lack an attribute for it.
        path = (drv.${name} or drv).outPath;
      }) outputs;
      pname = drv.pname or parsed.name;
      version = drv.version or parsed.version;
      mainProgram = meta.mainProgram or null;
      description = said meta "description";
      homepage = said meta "homepage";
      licences = licences meta;
      insecure = insecure meta;
    };

  # `value`, or `otherwise` when it throws: a package is not refused for what
  # is merely said of it. Not `attempt`: the reason is to be that of the package.
  orElse =
    otherwise: value:
    let
      tried = tryEval (deepSeq value value);
    in
    if tried.success then tried.value else otherwise;

  # A word or a sentence of `meta`; some packages have a list of homepages.
  said =
    meta: key:
    let
      value = orElse null (meta.${key} or null);
    in
    if isString value then
      value
    else if isList value && value != [ ] && isString (head value) then
      head value
    else
      null;

  # What stands for a licence that can't be read: policies take it for any that
  # they refuse (`UNREADABLE` in the policy's facts).
  unreadable = [ "unreadable" ];

  # All that `meta.license` (a set, a word, or a list of these) calls itself,
  # and the word "unfree" for what is not free.
  licences =
    meta:
    let
      license = meta.license or [ ];
      text =
        value:
        orElse unreadable (
          if isString value then
            [ value ]
          else if value == null then
            [ ]
          else
            unreadable
        );
      names =
        one:
        if isAttrs one then
          concatMap (key: text (one.${key} or null)) [
            "shortName"
            "spdxId"
            "fullName"
          ]
          ++ orElse unreadable (if one.free or true == false then [ "unfree" ] else [ ])
        else
          text one;
    in
    orElse unreadable (
      concatMap (one: orElse unreadable (names one)) (if isList license then license else [ license ])
    );

  # A mark that can't be read is one.
  insecure =
    meta:
    let
      isMarked = value: orElse true (value != null && value != false && value != [ ]);
    in
    isMarked (meta.knownVulnerabilities or [ ]) || isMarked (meta.insecure or false);

  root = node packages;
  resolve = name: { inherit name; } // walk [ ] [ ] root (filter isString (split "\\." name));
  wanted = fromJSON names;
in
{
  packages = if wanted == [ ] then seq packages [ ] else map resolve wanted;
}
