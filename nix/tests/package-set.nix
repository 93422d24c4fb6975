# A package set that holds one specimen of everything resolve.nix must tell
# apart. No derivation of it is ever built.
{ system, ... }@arguments:

let
  package =
    attributes:
    derivation (
      {
        inherit system;
        name = "specimen-1.0";
        builder = "/bin/false";
      }
      // attributes
    );
  split = package { outputs = [ "out" "bin" "doc" ]; };
in
# resolve.nix must offer only what the set asks for by name.
assert arguments == { inherit system; };
{
  plain = package { name = "plain-2.39.5"; };
  described = package { name = "described"; } // {
    pname = "described-elsewhere";
    version = "7";
    meta.mainProgram = "program";
  };
  outputs = split // {
    meta.outputsToInstall = [ "bin" "doc" ];
    doc = split.doc // { outputSpecified = true; };
  };

  Mixed = package { name = "mixed-1"; };
  MIXED = package { name = "upper-1"; };
  nested.Inner.deep = package { name = "deep-3"; };
  _7zz = package { name = "7zz-9"; };
  _2Upper = package { name = "2upper-9"; };

  set.of = "things";
  text = "not a set";
  removed = throw "removed has been removed";
  throwingSet = throw "the set itself throws";
  broken = package { name = throw "broken"; };
  unfree = package { } // { drvPath = throw "unfree"; };
  badOutput = package { } // { meta.outputsToInstall = throw "bad meta"; };
}
