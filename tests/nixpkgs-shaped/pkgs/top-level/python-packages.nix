# The interpreter and its modules, which know each other.
{ self }:
let
  inherit (self) lib stdenv;
  # As in `lib/python3.13`.
  python = "python${if stdenv.real == null then "3.13" else stdenv.real.python}";
  build =
    { minimal ? false }:
    let
      interpreter = stdenv.mkDerivation {
        pname = if minimal then "python3-minimal" else "python3";
        version = "3.13.11";
        # The real one comes without modules of its own.
        installPhase = stdenv.installReal "python3" "mkdir $out/bin; echo python > $out/bin/python3.13; ln -s python3.13 $out/bin/python3";
        passthru = {
          inherit pkgs;
          pythonVersion = "3.13";
          interpreter = "${interpreter}/bin/python3.13";
          withPackages = choose: stdenv.mkDerivation {
            name = "python3-3.13.11-env";
            modules = choose pkgs;
            allowSubstitutes = false;
            preferLocalBuild = true;
          };
        };
        meta = { description = "High-level dynamically-typed programming language"; mainProgram = "python3"; license = lib.licenses.mit; };
      };
      buildPythonPackage = attrs: stdenv.mkDerivation (
        {
          name = "python3.13-${attrs.pname}-${attrs.version}";
          # A module imports those that it needs, which are found by this list alone.
          installPhase = ''
            mkdir -p $out/lib/${python}/site-packages $out/nix-support
            {
              for module in $imports; do echo "import $module"; done
              echo "__version__ = '${attrs.version}'"
            } > $out/lib/${python}/site-packages/${attrs.pname}.py
            echo " $propagated " > $out/nix-support/propagated-build-inputs
          '';
          propagated = map toString ([ interpreter ] ++ attrs.dependencies or [ ]);
          imports = map (one: one.pname) (attrs.dependencies or [ ]);
          meta = { license = lib.licenses.asl20; description = "A module for Python"; };
        }
        // removeAttrs attrs [ "dependencies" ]
        // { passthru = { pythonModule = interpreter; } // attrs.passthru or { }; }
      );
      module = pname: version: dependencies: buildPythonPackage { inherit pname version dependencies; };
      pkgs = {
        inherit buildPythonPackage;
        python = interpreter;
        buildPythonApplication = buildPythonPackage;
        callPackage = lib.callPackageWith (self // pkgs);
        requests = module "requests" "2.33.1" [ pkgs.urllib3 pkgs.certifi pkgs.idna ];
        urllib3 = module "urllib3" "2.6.3" [ pkgs.brotli ];
        brotli = module "brotli" "1.2.0" [ ];
        certifi = module "certifi" "2026.1.4" [ ];
        idna = module "idna" "3.11" [ ];
        numpy = module "numpy" "2.4.1" [ ];
        # A removed module, and one for which the interpreter is too new.
        nose = throw "nose has been removed since it has been deprecated and unmaintained for almost a decade and does not work on Python 3.12 or later";
        asynctest = throw "asynctest-0.13.0 not supported for interpreter python3.13";
      }
      // self.scaledPythonModules buildPythonPackage;
    in
    interpreter;
in
{
  interpreter = lib.makeOverridable build { };
}
