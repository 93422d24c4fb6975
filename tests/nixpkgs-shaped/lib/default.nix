# What the set needs of a library.
let
  inherit (builtins)
    attrNames functionArgs intersectAttrs isAttrs isFunction listToAttrs mapAttrs removeAttrs;
in
rec {
  # `self: super: …` on each other, the last one outermost.
  extends =
    overlay: base: self:
    let
      super = base self;
    in
    super // overlay self super;
  fix =
    f:
    let
      x = f x;
    in
    x;
  compose = builtins.foldl' (base: overlay: extends overlay base);

  makeOverridable =
    f: arguments:
    let
      result = f arguments;
      override = changes: makeOverridable f (arguments // (if isFunction changes then changes arguments else changes));
    in
    if isAttrs result then result // { inherit override; } else result;

  callPackageWith =
    scope: file: arguments:
    let
      f = if isFunction file then file else import file;
    in
    makeOverridable f (intersectAttrs (functionArgs f) scope // arguments);

  recurseIntoAttrs = set: set // { recurseForDerivations = true; };
  dontRecurseIntoAttrs = set: set // { recurseForDerivations = false; };
  genAttrs = names: f: listToAttrs (map (name: { inherit name; value = f name; }) names);
  getName = package: package.pname or (builtins.parseDrvName package.name).name;
  optional = condition: value: if condition then [ value ] else [ ];
  mapNames = f: set: listToAttrs (map (name: { name = f name; value = set.${name}; }) (attrNames set));
  warn = message: value: builtins.trace "evaluation warning: ${message}" value;
  warnAlias = message: value: warn message value;
  inherit mapAttrs removeAttrs;

  licenses =
    mapAttrs (shortName: more: { inherit shortName; free = true; deprecated = false; } // more)
      {
        mit = { spdxId = "MIT"; fullName = "MIT License"; };
        gpl2Only = { spdxId = "GPL-2.0-only"; fullName = "GNU General Public License v2.0 only"; };
        gpl3Plus = { spdxId = "GPL-3.0-or-later"; fullName = "GNU General Public License v3.0 or later"; };
        asl20 = { spdxId = "Apache-2.0"; fullName = "Apache License 2.0"; };
        openssl = { spdxId = "OpenSSL"; fullName = "OpenSSL License"; };
        unfree = { fullName = "Unfree"; free = false; };
        unfreeRedistributable = { fullName = "Unfree redistributable"; free = false; redistributable = true; };
      };
}
