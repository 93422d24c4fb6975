# A Nix package set made of Debian's (or Ubuntu's) own packages, under the
# names that nixpkgs gives them: a registry can be tried without nixpkgs.
#
#   packages.json   attribute -> Debian packages        (what the set offers)
#   index-*.json    Debian package -> URL, SHA-256, dependencies   (index.py)
#   fixups.nix      attribute -> what only that package needs
#   deb.nix         packages of the index -> one derivation
#
# The keys of an attribute in packages.json:
#
#   debian    Debian packages, unpacked into one output; the first is the one
#             that gives its version. A dependency on that one is a dependency
#             on the attribute: there is one bash.
#   merge     pattern: packages of their closure that go into the same output,
#             because the parts find each other relative to themselves
#   without   pattern: packages to leave out of the closure, with what only
#             they depend on
#   uses      further packages for the closure, which only a fixup refers to
#   program   meta.mainProgram
#   pname     its name, if that is not the last part of the attribute
#
# All else of the closure are derivations of their own, one per Debian package.
{
  system ? builtins.currentSystem,
  ...
}:

let
  inherit (builtins)
    attrNames
    concatMap
    elem
    elemAt
    filter
    foldl'
    fromJSON
    genericClosure
    head
    isList
    listToAttrs
    mapAttrs
    match
    pathExists
    readFile
    split
    tail
    ;

  platforms = {
    x86_64-linux = {
      architecture = "amd64";
      triplet = "x86_64-linux-gnu";
    };
    aarch64-linux = {
      architecture = "arm64";
      triplet = "aarch64-linux-gnu";
    };
  };
  platform =
    platforms.${system}
      or (throw "The Debian package set is for ${toString (attrNames platforms)}, not ${system}.");

  index =
    let
      file = ./. + "/index-${platform.architecture}.json";
    in
    if pathExists file then
      fromJSON (readFile file)
    else
      throw "The index of Debian's packages for ${system} is missing. Make it with: python3 ${toString ./index.py} --arch ${platform.architecture} --out ${toString file}";
  # An archive may lack a package that another release has.
  described = fromJSON (readFile ./packages.json);
  offered = listToAttrs (
    map (name: {
      inherit name;
      value = described.${name};
    }) (filter (name: index.packages ? ${head described.${name}.debian}) (attrNames described))
  );

  deb = import ./deb.nix platform;
  fixups = import ./fixups.nix;

  matches = pattern: name: pattern != null && match pattern name != null;

  # Packages that can only be had together with `name`, itself included.
  together =
    let
      groups = listToAttrs (
        concatMap (
          group:
          map (name: {
            inherit name;
            value = group;
          }) group
        ) index.cycles
      );
    in
    name: groups.${name} or [ name ];

  # `roots` and all they depend on, nearest first.
  closure =
    without: roots:
    let
      wanted = names: map (key: { inherit key; }) (filter (name: !matches without name) names);
    in
    map (node: node.key) (genericClosure {
      startSet = wanted roots;
      operator = node: wanted index.packages.${node.key}.depends;
    });

  # Scripts run with it, and so do wrappers: it is everybody's dependency but
  # its own closure's.
  shell = "bash";
  beneathShell = closure null [ shell ];

  assemble =
    {
      pname,
      roots,
      uses ? [ ],
      merge ? null,
      without ? null,
      fixup ? "",
    }:
    let
      names = closure without (filter (name: index.packages ? ${name}) (roots ++ uses));
      isMember = name: elem name roots || matches merge name;
      members = filter isMember names;
      others = filter (name: !isMember name) names;
      extra = if elem (head roots) beneathShell then [ ] else [ shell ];
    in
    deb {
      inherit pname fixup python;
      version = upstreamVersion index.packages.${head roots}.version;
      packages = listToAttrs (
        map (name: {
          inherit name;
          value = index.packages.${name};
        }) members
      );
      dependencies = unique (map (name: derivationOf.${name}) (others ++ extra));
    };

  unique = foldl' (list: item: if elem item list then list else list ++ [ item ]) [ ];

  python = head (match "([0-9]+\\.[0-9]+).*" index.packages.python3.version);

  # "1:2.39.5-0+deb12u2" -> "2.39.5"
  upstreamVersion =
    version:
    let
      withoutEpoch = elemAt (match "([0-9]+:)?(.*)" version) 1;
      withoutRevision = match "(.*)-[^-]*" withoutEpoch;
    in
    if withoutRevision == null then withoutEpoch else head withoutRevision;

  attributeOf = listToAttrs (
    # listToAttrs keeps the first of equal names.
    map (name: {
      name = head offered.${name}.debian;
      value = name;
    }) (attrNames offered)
  );

  # Debian package name -> the derivation that has its files.
  derivationOf = mapAttrs (
    name: _:
    if attributeOf ? ${name} then
      derivationFor attributeOf.${name}
    else
      let
        group = together name;
      in
      if head group != name then
        derivationOf.${head group}
      else
        assemble {
          pname = name;
          roots = group;
        }
  ) index.packages;

  derivationFor =
    attribute:
    let
      description = offered.${attribute};
      path = components attribute;
    in
    assemble {
      pname = description.pname or (elemAt path (builtins.length path - 1));
      roots = concatMap together description.debian;
      uses = description.uses or [ ];
      merge = description.merge or null;
      without = description.without or null;
      fixup = fixups.${attribute} or "";
    };

  components = attribute: filter (part: !isList part) (split "\\." attribute);

  withMeta =
    attribute:
    let
      description = offered.${attribute};
      drv = derivationOf.${head description.debian};
    in
    drv
    // {
      meta = {
        outputsToInstall = [ "out" ];
      }
      // (if description ? program then { mainProgram = description.program; } else { });
    };

  # { "a.b" = x; c = y; } -> { a.b = x; c = y; }
  nest =
    set:
    foldl' (
      nested: attribute:
      let
        path = components attribute;
        outer = head path;
        inner = head (tail path);
      in
      nested
      // {
        ${outer} =
          if tail path == [ ] then
            set.${attribute}
          else
            nested.${outer} or { } // { ${inner} = set.${attribute}; };
      }
    ) { } (attrNames set);

  packages = nest (mapAttrs (attribute: _: withMeta attribute) offered);
in
packages
// {
  # What nixpkgs' standard environment holds, as one tree.
  stdenv = import ./stdenv.nix { inherit packages; };
}
