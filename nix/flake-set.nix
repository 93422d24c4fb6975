# A pinned flake -> its packages for a system, as a package set. What Nix itself does with a flake,
# less the fetching: see flake.nix.
#
# An input is found by its lock, which has a node for each, and in the archive, which has a path for
# each: both are walked from the root.
{ tree, dir }:
{ system }:

let
  inherit (builtins)
    attrNames
    foldl'
    fromJSON
    isString
    mapAttrs
    pathExists
    readFile
    storePath
    substring
    ;

  below = path: folder: if folder == "" then path else path + "/" + folder;

  lockFile = below tree.path dir + "/flake.lock";
  lock =
    if pathExists lockFile then
      fromJSON (readFile lockFile)
    else
      {
        root = "root";
        nodes.root = { };
      };

  # Node -> where its source is. An input that follows another one is no node of its own.
  trees =
    let
      collect =
        found: name: tree:
        let
          inputs = lock.nodes.${name}.inputs or { };
        in
        foldl' (
          found: input:
          if isString inputs.${input} && !(found ? ${inputs.${input}}) then
            collect found inputs.${input} tree.inputs.${input}
          else
            found
        ) (found // { ${name} = tree.path; }) (attrNames inputs);
    in
    collect { } lock.root tree;

  # A list is a way from the root: [ "nixpkgs" ] is the root's own input of that name.
  node =
    spec:
    if isString spec then
      spec
    else
      foldl' (name: input: node lock.nodes.${name}.inputs.${input}) lock.root spec;

  flakes = mapAttrs (
    name: path:
    let
      inherit (lock.nodes.${name}) locked;
      isRoot = name == lock.root;
      source = storePath path;
      sourceInfo =
        if isRoot then
          { outPath = source; }
        else
          {
            outPath = source;
            lastModified = 0;
            lastModifiedDate = "19700101000000";
          }
          // removeAttrs locked [ "type" "url" "path" "dir" "owner" "repo" "ref" ]
          // (if locked ? rev then { shortRev = substring 0 7 locked.rev; } else { });
      outPath = below source (if isRoot then dir else locked.dir or "");
      inputs = mapAttrs (_: spec: flakes.${node spec}) (lock.nodes.${name}.inputs or { });
      outputs = (import (outPath + "/flake.nix")).outputs (inputs // { self = flake; });
      flake =
        outputs
        // sourceInfo
        // {
          inherit inputs outputs outPath sourceInfo;
          _type = "flake";
        };
    in
    if lock.nodes.${name}.flake or true then flake else sourceInfo // { inherit sourceInfo; }
  ) trees;

  self = flakes.${lock.root};
in
self.legacyPackages.${system} or { } // self.packages.${system} or { }
