# Packages to measure with: `app` and `tools` both need 80 others. What two need is a layer of
# its own, so an image of both has a manifest of about 15 kB; `large` makes a layer of 146 MB that does not shrink.
{ system ? builtins.currentSystem }:
let
  package = name: script: derivation {
    name = "${name}-1";
    pname = name;
    version = "1";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" script ];
  };
  other = number:
    let name = "other-${toString number}"; in
    package name "mkdir -p $out/share; echo ${name} > $out/share/${name}";
  # Names the others' store paths, which makes them its references.
  needing = name: package name
    "mkdir -p $out/share; echo ${toString (builtins.genList other 80)} > $out/share/${name}";
in
{
  app = needing "app";
  tools = needing "tools";
  large = package "large" "mkdir -p $out/share; head -c 146000000 /dev/urandom > $out/share/large";
  cacert = package "cacert" "mkdir -p $out/etc; echo none > $out/etc/cacert";
  iana-etc = package "iana-etc" "mkdir -p $out/etc; echo none > $out/etc/iana-etc";
}
