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
  # JSON list of names; each is an attribute path, its components joined by dots.
  # With none, it is found out whether the package set as such can be evaluated.
  names,
  # Whether what throws is to end the evaluation.
  explain ? false,
}:

let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    deepSeq
    filter
    fromJSON
    functionArgs
    head
    intersectAttrs
    isAttrs
    isFunction
    isList
    isString
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

  packages =
    let
      imported = import source;
      # Without `config` and `overlays` nixpkgs would read those of the user
      # who happens to run the evaluation.
      arguments = {
        inherit system;
        config = { };
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

  # How an attribute path is written in an image's name.
  path = attribute: lowercase (concatStringsSep "." attribute);

  # Follows `components` from a node; `attribute` is the path found so far.
  # Every step may meet a throw, which must not hide the other names.
  walk =
    attribute: here: components:
    let
      inherit (here) isSet;
      component = head components;
      found = spelling here component;
      next = head found;
    in
    if !isSet.success then
      { state = "refused"; }
    else if components == [ ] then
      inspect attribute here.value
    else if !isSet.value || found == [ ] then
      {
        state = "unknown";
        near = if isSet.value then map (name: path (attribute ++ [ name ])) (near here component) else [ ];
      }
    else
      walk (attribute ++ [ next ]) here.children.${next} (tail components);

  inspect =
    attribute: value:
    let
      isDerivation = attempt (isAttrs value && value.type or null == "derivation");
      record = describe attribute value;
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

  describe =
    attribute: drv:
    let
      meta = drv.meta or { };
      parsed = parseDrvName drv.name;
      default = drv.outputName or "out";
      # What a Nix user would get from installing the attribute: `git.doc`
      # names its output, `git` leaves the choice to the package.
      outputs =
        if drv.outputSpecified or false then [ default ] else meta.outputsToInstall or [ default ];
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
  resolve = name: { inherit name; } // walk [ ] root (filter isString (split "\\." name));
  wanted = fromJSON names;
in
{
  packages = if wanted == [ ] then seq packages [ ] else map resolve wanted;
}
