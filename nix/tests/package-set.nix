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
  having = meta: package { } // { inherit meta; };
  described = package { name = "described"; } // {
    pname = "described-elsewhere";
    version = "7";
    meta = {
      mainProgram = "program";
      description = "A thing";
      homepage = [ "https://one.example" "https://two.example" ];
    };
  };
  split = package { outputs = [ "out" "bin" "doc" ]; };
  # What packages of nixpkgs have: sources, functions, and other packages, which pass it on again.
  inside = package {
    name = "inside-1";
    src = package { name = "inside-source"; };
    wrapped = pkgs.other;
  } // {
    passthru = { inherit pkgs; wrapped = pkgs.other; };
    inherit pkgs;
    self = inside;
    override = _: inside;
  };
  pkgs = {
    inherit inside;
    other = package { name = "other-2"; outputs = [ "out" "dev" ]; } // { back = inside; };
  };
in
# resolve.nix must offer only what the set asks for by name.
assert arguments == { inherit system; };
{
  plain = package { name = "plain-2.39.5"; };
  inherit described;
  alias = described;
  outputs = split // {
    meta.outputsToInstall = [ "bin" "doc" ];
    doc = split.doc // { outputSpecified = true; };
  };

  inherit inside;
  restricted = package { name = "restricted-1"; } // {
    drvPath = throw "restricted";
    meta.license = "secret";
  };
  licensedOutputs = package { name = "kit-1"; outputs = [ "out" "doc" ]; } // {
    pname = "toolkit";
    meta.license = "mit";
  };
  typeThrows = { type = throw "no type"; inner = package { name = "inner-1"; }; };

  Mixed = package { name = "mixed-1"; };
  MIXED = package { name = "upper-1"; };
  nested.Inner.deep = package { name = "deep-3"; };
  _7zz = package { name = "7zz-9"; };
  _2Upper = package { name = "2upper-9"; };

  licensed = having {
    license = {
      shortName = "gpl2";
      spdxId = "GPL-2.0-only";
      fullName = "GNU GPL 2";
      free = true;
    };
  };
  licensedTwice = having {
    license = [
      "MIT OR Apache-2.0"
      {
        shortName = "proprietary";
        spdxId = null;
        fullName = throw "no full name";
        free = false;
      }
      (throw "the third throws")
      7
      {
        shortName = [ "list" ];
        fullName = "free enough";
        free = throw "who knows";
      }
    ];
  };
  word = having { license = "mit"; };
  badLicence = having {
    license = throw "no licence";
    knownVulnerabilities = throw "no list";
    insecure = throw "no answer";
    description = throw "no description";
    homepage = 7;
  };
  badMeta = having "text";
  vulnerable = having {
    knownVulnerabilities = [ (throw "CVE-1") ];
    insecure = "what?";
  };
  markedInsecure = having {
    knownVulnerabilities = 3;
    insecure = true;
  };

  set.of = "things";
  text = "not a set";
  function = arguments: arguments;
  removed = throw "removed has been removed";
  throwingSet = throw "the set itself throws";
  broken = package { name = throw "broken"; };
  unfree = package { } // { drvPath = throw "unfree"; };
  badOutput = package { } // { meta.outputsToInstall = throw "bad meta"; };
}
