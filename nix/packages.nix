# The package set, imported as all of our expressions see it, and what they ask of it alike:
#
#   import ./packages.nix { inherit source system config; }
#     => { packages, isWhole, about, … }
#
# Only builtins are used, so any package set will do. The file stands beside those
# that import it, wherever they are copied to.
{
  # Path of the package set: what `import` accepts.
  source,
  # The system that the packages are for, such as "aarch64-linux".
  system,
  # JSON of what is allowed though nixpkgs refuses it, and of the overlays' files
  # (NIXGATE_NIXPKGS_CONFIG).
  config,
}:

let
  inherit (builtins)
    all
    concatMap
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
    parseDrvName
    replaceStrings
    split
    tryEval
    ;

  written = fromJSON config;

  # Lists for nixpkgs, which asks by a name without version, and by one with it.
  configuration =
    let
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

  overlays = map (
    file:
    let
      overlay = import file;
    in
    if isFunction overlay then
      overlay
    else
      throw "the overlay ${file} is not a function of the form final: prev: { … }"
  ) (written.overlays or [ ]);

  imported = import source;
  accepted = if isFunction imported then functionArgs imported else { };

  packages =
    let
      # Without `config` and `overlays` nixpkgs would read those of the user
      # who happens to run the evaluation.
      arguments = {
        inherit system;
        config = configuration;
        inherit overlays;
      };
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
  isWhole = value: length marks > 3 && isAttrs value && all (name: value ? ${name}) marks;

  isPackage = value: value.type or null == "derivation";

  characters = string: filter (character: character != "" && isString character) (split "" string);
  lowercase = replaceStrings (characters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
    characters "abcdefghijklmnopqrstuvwxyz"
  );

  # The outputs that a Nix user would get from installing a package: `git.doc`
  # names its output, `git` leaves the choice to the package.
  installed =
    drv:
    let
      default = drv.outputName or "out";
    in
    if drv.outputSpecified or false then [ default ] else drv.meta.outputsToInstall or [ default ];

  # A derivation with one output may lack an attribute for it.
  outputPath = drv: name: (drv.${name} or drv).outPath;

  # What is said of a package, by itself and by its `meta`.
  about =
    drv:
    let
      meta = drv.meta or { };
      parsed = parseDrvName drv.name;
    in
    {
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
in
{
  takesOverlays = accepted ? overlays;
  inherit
    packages
    isWhole
    isPackage
    lowercase
    installed
    outputPath
    about
    orElse
    ;
}
