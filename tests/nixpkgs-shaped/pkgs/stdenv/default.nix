# mkDerivation, by the machine's shell: `installPhase` makes $out and the other outputs, which are there.
{ lib, config, system, salt, real }:
let
  inherit (builtins) isFunction removeAttrs unsafeGetAttrPos listToAttrs head;
  checkMeta = import ./check-meta.nix { inherit lib config system; };

  make =
    attrs:
    let
      name = attrs.name or "${attrs.pname}-${attrs.version}";
      outputs = attrs.outputs or [ "out" ];
      at = unsafeGetAttrPos (if attrs ? pname then "pname" else "name") attrs;
      position = if at == null then "unknown-file" else "${at.file}:${toString at.line}";
      meta = checkMeta.of attrs position;
      valid = checkMeta.check attrs position;
      passed = attrs.passthru or { };
      drv = derivation (
        {
          inherit name system outputs salt;
          builder = "/bin/sh";
          PATH = "/usr/bin:/bin";
          args = [ "-euc" ''
            for output in $outputs; do eval "mkdir -p \$$output"; done
            ${attrs.installPhase or "echo ${name} > $out/name"}
          '' ];
        }
        // removeAttrs attrs [ "meta" "passthru" "installPhase" "outputs" "name" ]
      );
      # As nixpkgs' extendDerivation: nothing of a refused package can be built or named.
      extended =
        drv
        // passed
        // {
          inherit meta;
          passthru = passed;
          drvPath = assert valid; drv.drvPath;
          outPath = assert valid; drv.outPath;
          overrideAttrs = change: make (attrs // (if isFunction change then change attrs else change));
        }
        // outputAttributes;
      outputAttributes = listToAttrs (
        map (output: {
          name = output;
          value =
            drv.${output}
            // passed
            // {
              inherit meta;
              passthru = passed;
              outputSpecified = true;
              drvPath = assert valid; drv.${output}.drvPath;
              outPath = assert valid; drv.${output}.outPath;
            }
            // outputAttributes;
        }) outputs
      );
    in
    extended // { outputName = head outputs; };

  # The files of a real package, or what this set makes in their place.
  installReal = name: otherwise: if real == null then otherwise else "cp -r ${real.${name}}/. $out";
in
# A package without programs, as in nixpkgs.
make {
  pname = "stdenv-linux";
  version = "1";
  meta = { description = "The default build environment"; license = lib.licenses.mit; };
}
// {
  cc = make {
    pname = "gcc-wrapper";
    version = "15.2.0";
    installPhase = installReal "gcc" "mkdir $out/bin; echo gcc > $out/bin/gcc";
    meta = { description = "GNU Compiler Collection"; license = lib.licenses.gpl3Plus; mainProgram = "gcc"; };
  };
  mkDerivation = attrs: if isFunction attrs then lib.fix (self: make (attrs self)) else make attrs;
  hostPlatform = { inherit system; isLinux = true; };
  inherit installReal real;
  inherit system;
}
