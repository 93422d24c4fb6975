# Packages of a few files each. Every one of them needs three of the thirty libraries. The two that
# are in every image need all of them: so each is shared, and a layer of its own.
{ system ? builtins.currentSystem }:
let
  package = name: needs: derivation {
    name = "@salt@-${name}-1";
    pname = name;
    version = "1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [
      "-c"
      ''
        mkdir -p $out/bin $out/share/${name}
        echo ${toString needs} > $out/bin/${name}
        for file in 1 2 3 4 5 6 7 8; do echo ${name} > $out/share/${name}/$file; done
      ''
    ];
  };
  library = number: package "library${toString number}" [ ];
  modulo = number: by: number - (number / by) * by;
  several = kind: count: builtins.listToAttrs (builtins.genList
    (number: rec {
      name = "${kind}${toString number}";
      value = package name (map (way: library (modulo (number * way + way) 30)) [ 1 7 11 ]);
    })
    count);
in
several "known" 40 // several "prepared" 50 // several "unbuilt" 50 // {
  cacert = package "cacert" (builtins.genList library 30);
  iana-etc = package "iana-etc" (builtins.genList library 30);
}
