# A flake and its inputs -> a package set in one file of the store.
#
#   nix flake archive --json ──► archive  { path, inputs = { nixpkgs = { path, inputs … } … } }
#                                   │
#   nix-instantiate --eval --json --read-write-mode flake.nix \
#     --argstr archive JSON --argstr dir ""
#                                   │
#                                   ▼
#   /nix/store/…-nixgate-flake      imports the flake, each input from its path in the store; and
#                                   refers to them all, so that one link keeps them from the
#                                   garbage collector, and whoever may read it may read them
#
# So what was locked and fetched once is evaluated as any other package set is: by a Nix that
# fetches nothing, of whichever version.
{
  # What Nix printed.
  archive,
  # The folder of the flake in its source; empty for the top.
  dir,
}:

let
  inherit (builtins)
    fromJSON
    mapAttrs
    readFile
    storePath
    toFile
    toJSON
    ;
  # toFile notes what a text refers to by where the text comes from.
  referring = tree: {
    path = storePath tree.path;
    inputs = mapAttrs (_: referring) (tree.inputs or { });
  };
  pin = toJSON {
    inherit dir;
    tree = referring (fromJSON archive);
  };
in
# A string of Nix code is a string of JSON but for `$`, which no store path has and a folder may.
toFile "nixgate-flake" "(${readFile ./flake-set.nix}) (builtins.fromJSON ${
  builtins.replaceStrings [ "$" ] [ "\\$" ] (toJSON pin)
})"
