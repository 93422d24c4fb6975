# An image made by Nix alone, without nixgate: for those who want more in it
# than packages. An OCI image layout, which skopeo copies anywhere.
#
#   contents, maxLayers ──► layers.sh ──► one layer for each store path ─────┐
#       │                                                                    │
#       └─► tree.sh ──► the tree: links to the contents, and what ──► layout.sh
#              ▲        extraCommands make of it          │                  │
#   extraCommands, uid, gid                               └─► last layer ────┤
#   config, name, tag ───────────────────────────────────────────────────────▼
#                                                                 the layout folder
#
# Each box is a derivation. So a change of extraCommands, uid or gid makes the
# last layer anew and nothing else, and a change of config not even that.
# Store paths that only extraCommands or config mention are in the last layer,
# so that the others stay as they are.
{
  # The tools: nixpkgs, or any set with bash, coreutils, gnutar, gzip and jq
  # for the machine that builds.
  pkgs,
  # Of the image, in lower case.
  name,
  tag ? "latest",
  # Packages, whose files are linked into the root of the image. Where two have
  # the same file, that of the first is linked.
  contents ? [ ],
  # Bash, run in the image's root when the links are there: may make files,
  # folders and links, and set modes. In the sandbox, without any network.
  extraCommands ? "",
  # Who owns the tree, but for the store paths, which are root's.
  uid ? 0,
  gid ? 0,
  # At most so many layers, the last one included.
  maxLayers ? 94,
  # What the OCI image spec calls config: Cmd, Entrypoint, Env, User,
  # WorkingDir, Labels, ExposedPorts, Volumes, StopSignal.
  config ? { },
  # The platform of the contents, as Go calls it.
  architecture ? {
    x86_64-linux = "amd64";
    aarch64-linux = "arm64";
  }.${builtins.currentSystem},
}:

let
  inherit (builtins)
    attrNames
    concatLists
    concatStringsSep
    elem
    elemAt
    filter
    genList
    isInt
    isString
    length
    match
    toJSON
    ;

  known = [
    "Cmd"
    "Entrypoint"
    "Env"
    "ExposedPorts"
    "Labels"
    "StopSignal"
    "User"
    "Volumes"
    "WorkingDir"
  ];
  unknown = filter (key: !elem key known) (attrNames config);
  isOwner = id: isInt id && id >= 0;

  problem = found: message: if found then [ message ] else [ ];
  problems = concatLists [
    (problem (!(isString name && match "[a-z0-9]+((\\.|_|__|-+|/)[a-z0-9]+)*" name != null))
      "the name is no image's: ${toJSON name}. Use lower case, digits, and one of . _ - / between them"
    )
    (problem (!(isString tag && match "[A-Za-z0-9_][A-Za-z0-9._-]*" tag != null))
      "the tag is none: ${toJSON tag}. Use letters, digits and . _ -"
    )
    (problem (!(isInt maxLayers && maxLayers >= 2 && maxLayers <= 127))
      "maxLayers is ${toJSON maxLayers}: it must be from 2 to 127, which is as many as Docker takes"
    )
    (problem (!(isOwner uid && isOwner gid))
      "uid and gid are ${toJSON uid} and ${toJSON gid}: they must be numbers, 0 or more"
    )
    (problem (unknown != [ ])
      "config has ${concatStringsSep ", " unknown}; known are ${concatStringsSep ", " known}"
    )
  ];

  step =
    suffix: attributes:
    derivation (
      {
        name = "image-${concatStringsSep "-" (filter isString (builtins.split "/" name))}${suffix}";
        system = builtins.currentSystem;
        builder = "${pkgs.bash}/bin/bash";
        PATH = concatStringsSep ":" (
          map (tool: "${tool}/bin") [
            pkgs.bash
            pkgs.coreutils
            pkgs.gnutar
            pkgs.gzip
            pkgs.jq
          ]
        );
        common = ./common.sh;
        # Packing is quicker than asking another machine to do it.
        preferLocalBuild = true;
      }
      // attributes
    );

  # As text, so that Nix knows a folder by its path in the store too.
  roots = map (root: "${root}") contents;
  closureOf =
    prefix: roots:
    concatLists (
      genList (index: [
        "${prefix}-${toString index}"
        (elemAt roots index)
      ]) (length roots)
    );

  layers = step "-layers" {
    args = [ ./layers.sh ];
    maxLayers = maxLayers - 1;
    exportReferencesGraph = closureOf "closure" roots;
  };

  tree = step "-tree" {
    args = [ ./tree.sh ];
    inherit
      roots
      extraCommands
      uid
      gid
      ;
    passAsFile = [ "extraCommands" ];
  };

  # A file of its own, since it may name store paths.
  configFile = step "-config" {
    args = [ ./config.sh ];
    config = toJSON config;
    passAsFile = [ "config" ];
  };
in
assert problems == [ ] || throw "nix/image: ${concatStringsSep "; " problems}";
step "" {
  args = [ ./layout.sh ];
  inherit
    layers
    tree
    configFile
    tag
    architecture
    ;
  imageName = "${name}:${tag}";
  exportReferencesGraph =
    closureOf "closure" roots
    ++ closureOf "mentioned" [
      "${tree}"
      "${configFile}"
    ];
}
// {
  inherit layers tree;
}
