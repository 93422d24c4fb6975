# Checks resolve.nix against ./package-set.nix and throws at what differs:
#   nix-instantiate --eval --strict --read-write-mode nix/tests/resolve.nix
let
  answer =
    source: names: overlays:
    import ../resolve.nix {
      inherit source;
      system = "x86_64-linux";
      # As text, without what it refers to, like an argument.
      config = builtins.unsafeDiscardStringContext (builtins.toJSON { inherit overlays; });
      names = builtins.toJSON names;
    };
  resolve = source: names: (answer source names [ ]).packages;

  set = import ./package-set.nix { system = "x86_64-linux"; };
  found = drv: attribute: name: version: {
    state = "derivation";
    inherit attribute version;
    inherit (drv) drvPath;
    pname = name;
    outputs = [ { name = "out"; path = drv.outPath; } ];
    identity = map (name: (drv.${name} or drv).outPath) (drv.outputs or [ "out" ]);
    mainProgram = null;
    description = null;
    homepage = null;
    licences = [ ];
    insecure = false;
  };
  # One output of a derivation, by which a name that names it is known.
  one = drv: name: {
    outputs = [ { inherit name; path = drv.${name}.outPath; } ];
    identity = [ drv.${name}.outPath ];
  };
  state = state: { inherit state; };
  unknown = near: state "unknown" // { inherit near; };
  not = type: state "not-a-derivation" // { inherit type; };
  like = import ./like-nixpkgs.nix { system = "x86_64-linux"; };
  # Ways to a package that nixpkgs has beside its name.
  ways = {
    git = like.git;
    gitalias = like.git;
    xev = like.xev;
    "xorg.xev" = like.xev;
    "stdenv.cc" = like.gcc;
    "python3packages.requests" = like.python3Packages.requests;
    "python3.pkgs.requests" = like.python3Packages.requests;
    "git.tests.fsck" = like.git.tests.fsck;
  };
  doors = [
    "pkgs.git" "pkgs" "pkgs.pkgs.git" "buildpackages.git" "targetpackages.git" "__splicedpackages.git"
    "pkgsstatic.git" "pkgsmusl.git" "pkgscross.riscv64.git" "pkgscross.riscv64.pkgs.git"
    "stdenv.__bootpackages.git" "pkgs.python3packages.requests" "git.override" "git.passthru.tests.fsck"
    "python3.pkgs.requests.python3.git" "pkgscross.riscv64"
  ];
  # Which of these names a set like nixpkgs has, and what they are.
  reached =
    names:
    map (one: one.drvPath or one.state) (resolve ./like-nixpkgs.nix names);
  onlyDefaults = builtins.toFile "set.nix" "{ config, overlays, ... }: { inherit config overlays; }";
  anyArguments = builtins.toFile "set.nix" "arguments: { \${arguments.system} = 1; }";
  # Its two overlays in order, and what throws.
  layered = builtins.toFile "set.nix" ''
    { overlays ? [ ] }:
    let
      final = builtins.foldl' (prev: overlay: prev // overlay final prev) { text = "plain"; } overlays;
    in
    final // { derived = derivation { name = final.text; system = "x"; builder = "x"; }; }
  '';
  first = builtins.toFile "first.nix" "final: prev: { text = prev.text + \"-first\"; }";
  second = builtins.toFile "second.nix" "final: prev: { text = prev.text + \"-second\"; }";
  noOverlay = builtins.toFile "set.nix" "{ }";
  pname = overlays: (builtins.head (answer layered [ "derived" ] overlays).packages).pname;
  isUsable = overlays: (builtins.tryEval (builtins.deepSeq (answer layered [ ] overlays) true)).success;

  plainSet = builtins.toFile "set.nix" "{ here = 1; }";

  cases = {
    plain = found set.plain [ "plain" ] "plain" "2.39.5";
    described = found set.described [ "described" ] "described-elsewhere" "7" // {
      mainProgram = "program";
      description = "A thing";
      homepage = "https://one.example";
    };
    outputs = found set.outputs [ "outputs" ] "specimen" "1.0" // {
      outputs = [
        { name = "bin"; path = set.outputs.bin.outPath; }
        { name = "doc"; path = set.outputs.doc.outPath; }
      ];
    };
    licensed = found set.licensed [ "licensed" ] "specimen" "1.0" // {
      licences = [ "gpl2" "GPL-2.0-only" "GNU GPL 2" ];
    };
    # Whatever throws or is of another type is unreadable, and nothing else is.
    licensedtwice = found set.licensedTwice [ "licensedTwice" ] "specimen" "1.0" // {
      licences = [
        "MIT OR Apache-2.0"
        # The full name throws.
        "proprietary" "unreadable" "unfree"
        # The licence throws, and is a number.
        "unreadable" "unreadable"
        # The short name is a list, and whether it is free throws.
        "unreadable" "free enough" "unreadable"
      ];
    };
    word = found set.word [ "word" ] "specimen" "1.0" // { licences = [ "mit" ]; };
    badlicence = found set.badLicence [ "badLicence" ] "specimen" "1.0" // {
      licences = [ "unreadable" ];
      insecure = true;
    };
    badmeta = found set.badMeta [ "badMeta" ] "specimen" "1.0";
    vulnerable = found set.vulnerable [ "vulnerable" ] "specimen" "1.0" // { insecure = true; };
    markedinsecure = found set.markedInsecure [ "markedInsecure" ] "specimen" "1.0" // {
      insecure = true;
    };
    alias = found set.alias [ "alias" ] "described-elsewhere" "7" // {
      mainProgram = "program";
      description = "A thing";
      homepage = "https://one.example";
    };
    # An output named in the path comes alone, and through the derivation.
    "outputs.doc" = found set.outputs [ "outputs" "doc" ] "specimen" "1.0" // one set.outputs "doc";
    "plain.out" = found set.plain [ "plain" "out" ] "plain" "2.39.5";
    # An output is what its package is, whatever was added to that.
    "licensedoutputs.doc" = found set.licensedOutputs [ "licensedOutputs" "doc" ] "toolkit" "1" // one set.licensedOutputs "doc" // {
      licences = [ "mit" ];
    };
    "restricted.out" = state "refused";
    # Nothing is below an output, which has all outputs again.
    "plain.out.out" = unknown [ "plain.out" ];
    "outputs.doc.out" = unknown [ "outputs.doc" ];
    "outputs.doc.doc" = unknown [ "outputs.doc" ];
    # What a package is built from, or says of itself, is none.
    "inside.src" = unknown [ "inside" "inside.out" ];
    "inside.src.out" = unknown [ "inside" "inside.out" ];
    "inside.drvattrs" = unknown [ "inside" "inside.out" ];
    "inside.drvattrs.src" = unknown [ "inside" "inside.out" ];
    "inside.passthru.pkgs.other" = unknown [ "inside" "inside.out" ];
    "inside.override" = unknown [ "inside" "inside.out" ];
    "inside.outpath" = unknown [ "inside" "inside.out" ];
    "inside.all" = unknown [ "inside" "inside.out" ];
    "inside.name" = unknown [ "inside" "inside.out" ];
    # What it passes on is, but for itself.
    "inside.pkgs.other" = found set.inside.pkgs.other [ "inside" "pkgs" "other" ] "other" "2";
    "inside.pkgs.other.dev" = found set.inside.pkgs.other [ "inside" "pkgs" "other" "dev" ] "other" "2"
      // one set.inside.pkgs.other "dev";
    "inside.wrapped" = found set.inside.pkgs.other [ "inside" "wrapped" ] "other" "2";
    "inside.pkgs" = not "set";
    "inside.self" = unknown [ ];
    "inside.pkgs.inside" = unknown [ ];
    "inside.pkgs.other.back" = unknown [ ];
    "inside.pkgs.other.back.out" = unknown [ ];
    "typethrows.inner" = found set.typeThrows.inner [ "typeThrows" "inner" ] "inner" "1";
    # Exact spelling wins; otherwise the first in attrNames order.
    Mixed = found set.Mixed [ "Mixed" ] "mixed" "1";
    mixed = found set.MIXED [ "MIXED" ] "upper" "1";
    "nested.inner.deep" = found set.nested.Inner.deep [ "nested" "Inner" "deep" ] "deep" "3";
    "7zz" = found set._7zz [ "_7zz" ] "7zz" "9";
    "2upper" = found set._2Upper [ "_2Upper" ] "2upper" "9";

    nope = unknown [ "nested" ];
    mixef = unknown [ "mixed" ];
    "nested.nope" = unknown [ ];
    "nested.inned" = unknown [ "nested.inner" ];
    "text.inside" = unknown [ ];
    "7nope" = unknown [ ];
    "" = unknown [ ];
    set = not "set";
    "set.of" = not "string";
    text = not "string";
    function = not "lambda";
    removed = state "refused";
    "throwingset.inside" = state "refused";
    broken = state "refused";
    unfree = state "refused";
    badoutput = state "refused";
  };
  names = builtins.attrNames cases;
  expected = map (name: cases.${name} // { inherit name; }) names;
  actual = resolve ./package-set.nix names;
  # Compares drvPaths as text: == on derivations looks at nothing else.
  differences = builtins.filter (pair: builtins.toJSON pair.actual != builtins.toJSON pair.expected) (
    builtins.genList (index: {
      actual = builtins.elemAt actual index;
      expected = builtins.elemAt expected index;
    }) (builtins.length names)
  );

  states = source: names: map (package: package.state) (resolve source names);
in
assert builtins.length actual == builtins.length names;
assert states onlyDefaults [ "config" "overlays" "system" ] == [ "not-a-derivation" "not-a-derivation" "unknown" ];
assert states anyArguments [ "x86_64-linux" ] == [ "not-a-derivation" ];
assert states plainSet [ "here" "there" ] == [ "not-a-derivation" "unknown" ];
assert pname [ ] == "plain";
assert pname [ first second ] == "plain-first-second";
assert pname [ second first ] == "plain-second-first";
assert isUsable [ first ] && !isUsable [ first noOverlay ];
assert map (source: (answer source [ ] [ ]).takesOverlays) [ layered onlyDefaults anyArguments plainSet ] == [ true true false false ];
assert reached (builtins.attrNames ways) == map (drv: drv.drvPath) (builtins.attrValues ways);
assert builtins.all (state: builtins.elem state [ "unknown" "refused" ]) (reached doors) || throw (builtins.toJSON (reached doors));
if differences == [ ] then
  "resolve.nix: ${toString (builtins.length names)} names as expected"
else
  throw (builtins.toJSON differences)
