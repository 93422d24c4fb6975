# Checks what nix/image makes anew after a change, and what it refuses; throws
# at what differs. Nothing is built.
#   nix-instantiate --eval --strict --read-write-mode nix/tests/image.nix
let
  package =
    name:
    derivation {
      inherit name;
      system = builtins.currentSystem;
      builder = "/bin/false";
    };
  pkgs = {
    bash = package "bash";
    coreutils = package "coreutils";
    gnutar = package "gnutar";
    gzip = package "gzip";
    jq = package "jq";
  };
  image =
    change:
    import ../image (
      {
        inherit pkgs;
        name = "team/app";
        contents = [ pkgs.bash ];
      }
      // change
    );
  first = image { };

  # Change -> which of the layers and the tree it makes anew.
  changes = {
    extraCommands = { extraCommands = "mkdir tmp"; };
    mentions = { extraCommands = "ln -s ${pkgs.jq}/bin/jq jq"; };
    uid = { uid = 1000; };
    gid = { gid = 1000; };
    config = { config.Cmd = [ "${pkgs.jq}/bin/jq" ]; };
    tag = { tag = "v2"; };
    contents = { contents = [ pkgs.bash pkgs.jq ]; };
    maxLayers = { maxLayers = 5; };
  };
  anew = change: {
    layers = (image change).layers.drvPath != first.layers.drvPath;
    tree = (image change).tree.drvPath != first.tree.drvPath;
    image = (image change).drvPath != first.drvPath;
  };
  found = builtins.mapAttrs (_: anew) changes;
  tree = { layers = false; tree = true; image = true; };
  neither = { layers = false; tree = false; image = true; };
  expected = {
    extraCommands = tree;
    mentions = tree;
    uid = tree;
    gid = tree;
    config = neither;
    tag = neither;
    contents = { layers = true; tree = true; image = true; };
    maxLayers = { layers = true; tree = false; image = true; };
  };

  mistakes = {
    upperCase = { name = "Team"; };
    emptyName = { name = ""; };
    twoSlashes = { name = "team//app"; };
    slashAtTheEnd = { name = "team/"; };
    tag = { tag = "a:b"; };
    oneLayer = { maxLayers = 1; };
    tooManyLayers = { maxLayers = 128; };
    layersInWords = { maxLayers = "many"; };
    negative = { uid = -1; };
    byName = { gid = "wheel"; };
    misspelt = { config.cmd = [ "bash" ]; };
  };
  accepted = builtins.filter (
    name: (builtins.tryEval (image mistakes.${name}).drvPath).success
  ) (builtins.attrNames mistakes);
in
if found != expected then
  throw "made anew: ${builtins.toJSON found}, not ${builtins.toJSON expected}"
else if accepted != [ ] then
  throw "not refused: ${builtins.toJSON accepted}"
else
  "as expected"
