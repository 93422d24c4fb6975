# What Nix has to have. `minimum.nix` is a file of its own, so that a test can ask for a Nix of the future.
let
  minimum = import ./minimum.nix;
  features = [
    {
      description = "the `nixVersion` builtin";
      condition = builtins ? nixVersion;
    }
    {
      description = "`builtins.nixVersion` reports at least ${minimum}";
      condition = builtins ? nixVersion && builtins.compareVersions minimum builtins.nixVersion != 1;
    }
  ];
  has = builtins.partition ({ condition, ... }: condition) features;
in
{
  all = features;
  supported = has.right;
  missing = has.wrong;
}
