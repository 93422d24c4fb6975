# Generated attributes, as many as `scale`, shared out as nixpkgs has them: 40 % at the top, 30 % in
# `haskellPackages`, 20 % Python modules, 10 % Perl modules. Of each 1000 at the top, the last
# three digits tell what is special:
#
#   000–019  unfree             020–029  broken            030–034  insecure
#   035–084  aliases of others  085–094  names that throw  095       can't be evaluated
#   100–299  several outputs    300–349  allowSubstitutes = false
scale: self: super:
let
  inherit (builtins) genList listToAttrs toString stringLength substring;
  inherit (self) lib stdenv;
  padded = number: let text = "000000${toString number}"; in substring (stringLength text - 6) 6 text;
  rest = number: number - number / 1000 * 1000;
  share = percent: scale * percent / 100;
  generate = count: name: value: listToAttrs (genList (number: { name = name number; value = value number; }) count);

  # Each needs the one before it in its group of ten.
  needs = number: of: if number - number / 10 * 10 == 0 then [ ] else [ (toString (of (number - 1))) ];
  top = number: "scaled-${padded number}";
  find = number: self.${top (if rest number < 400 then number + 400 else number)};
  package =
    number:
    let
      kind = rest number;
      between = low: high: kind >= low && kind <= high;
    in
    if between 35 84 then self.${top (number + 400)}
    else if between 85 94 then throw "'${top number}' has been removed because it is unmaintained upstream"
    else if kind == 95 then { }.missing
    else stdenv.mkDerivation ({
      pname = top number;
      version = "1.${toString kind}";
      needs = if kind < 400 then [ ] else needs number (other: if rest other < 400 then self.hello else self.${top other});
      meta = {
        description = "Generated package number ${toString number}";
        homepage = "https://example.org/${toString number}";
        mainProgram = top number;
        license = if between 0 19 then lib.licenses.unfree else lib.licenses.mit;
        broken = between 20 29;
        knownVulnerabilities = if between 30 34 then [ "CVE-2026-${toString number}" ] else [ ];
      };
    }
    // (if between 100 299 then { outputs = [ "out" "dev" "man" ]; } else { })
    // (if between 300 349 then { allowSubstitutes = false; preferLocalBuild = true; } else { }));
  module = make: prefix: number: make {
    pname = "${prefix}${padded number}";
    version = "0.${toString (rest number)}";
  };
in
{
  haskellPackages = lib.recurseIntoAttrs (
    generate (share 30) (number: "lib-${padded number}") (
      number: stdenv.mkDerivation {
        pname = "lib-${padded number}";
        version = "0.1";
        meta = {
          license = lib.licenses.mit;
          # Most of Hackage does not build.
          broken = number / 2 * 2 != number;
        };
      }
    )
  );
  scaledPythonModules = make: generate (share 20) (number: "module-${padded number}") (module make "module-");
  scaledPerlModules = make: generate (share 10) (number: "Module${padded number}") (module make "Module");
}
// generate (share 40) top package
