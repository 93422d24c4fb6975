# Refuses packages by their meta, in the words of today's nixpkgs.
{ lib, config, system }:
let
  inherit (builtins) any concatStringsSep elem isList;
  list = value: if isList value then value else [ value ];
  nameOf = attrs: attrs.name or "${attrs.pname}-${attrs.version}";
  licences = meta: list (meta.license or [ ]);
  isUnfree = meta: any (one: !(one.free or true)) (licences meta);
  shown = one: "‘${one.shortName or one}’";
  showLicences = meta: concatStringsSep ", " (map shown (licences meta));

  allowed =
    switch: predicate: attrs:
    config.${switch} or false || (config.${predicate} or (_: false)) attrs;

  remedies = variable: switch: what: ''

    a) To temporarily allow ${what}, you can use an environment variable
       for a single invocation of the nix tools.

         $ export NIXPKGS_ALLOW_${variable}=1

       Note: When using `nix shell`, `nix build`, `nix develop`, etc with a flake,
             then pass `--impure` in order to allow use of environment variables.

    b) For `nixos-rebuild` you can set
      { nixpkgs.config.${switch} = true; }
    in configuration.nix to override this.'';

  problem =
    attrs:
    let
      meta = attrs.meta or { };
    in
    if isUnfree meta && !allowed "allowUnfree" "allowUnfreePredicate" attrs then
      {
        reason = "unfree";
        message = "has an unfree license (${showLicences meta})";
        remedy = remedies "UNFREE" "allowUnfree" "unfree packages";
      }
    else if meta.broken or false && !(config.allowBroken or false) then
      {
        reason = "broken";
        message = "is marked as broken";
        remedy = remedies "BROKEN" "allowBroken" "broken packages";
      }
    else if meta ? platforms && !elem system meta.platforms && !(config.allowUnsupportedSystem or false) then
      {
        reason = "unsupported";
        message = ''
          is not available on the requested hostPlatform:
            hostPlatform.system = "${system}"
            package.meta.platforms = [
              ${concatStringsSep "\n    " (map (platform: "\"${platform}\"") meta.platforms)}
            ]
            package.meta.badPlatforms = [ ]
        '';
        remedy = remedies "UNSUPPORTED_SYSTEM" "allowUnsupportedSystem" "packages that are unsupported for this system";
      }
    else if
      meta.knownVulnerabilities or [ ] != [ ]
      && !elem (nameOf attrs) (config.permittedInsecurePackages or [ ])
      && !(config.allowInsecurePredicate or (_: false)) attrs
    then
      {
        reason = "insecure";
        message = "is marked as insecure";
        remedy = ''


          Known issues:
           - ${concatStringsSep "\n - " meta.knownVulnerabilities}

          You can install it anyway by allowing this package, using the
          following methods:
        '' + remedies "INSECURE" "allowInsecure" "all insecure packages";
      }
    else
      null;
in
{
  # The package's own meta, with what is known of it.
  of =
    attrs: position:
    (attrs.meta or { })
    // {
      name = nameOf attrs;
      available = problem attrs == null;
      unfree = isUnfree (attrs.meta or { });
      broken = attrs.meta.broken or false;
      insecure = attrs.meta.knownVulnerabilities or [ ] != [ ];
      inherit position;
      outputsToInstall =
        attrs.meta.outputsToInstall or (
          let
            outputs = attrs.outputs or [ "out" ];
            first = if elem "bin" outputs then "bin" else if elem "out" outputs then "out" else builtins.head outputs;
          in
          [ first ] ++ lib.optional (elem "man" outputs) "man"
        );
    };

  # True, or an error.
  check =
    attrs: position:
    let
      found = problem attrs;
    in
    found == null
    || throw "Refusing to evaluate package '${nameOf attrs}' in ${position} because it ${found.message}${found.remedy}";
}
