# by-name/<first two letters>/<name>/package.nix -> <name>
folder: self: _super:
let
  inherit (builtins) attrNames concatMap listToAttrs readDir;
  shard =
    two:
    map (name: {
      inherit name;
      value = self.callPackage (folder + "/${two}/${name}/package.nix") { };
    }) (attrNames (readDir (folder + "/${two}")));
in
listToAttrs (concatMap shard (attrNames (readDir folder)))
