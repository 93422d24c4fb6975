# Checks attributes.nix against ./package-set.nix and throws at what differs:
#   nix-instantiate --eval --strict --read-write-mode nix/tests/attributes.nix
let
  look =
    source: paths:
    import ../attributes.nix {
      inherit source;
      system = "x86_64-linux";
      paths = builtins.toJSON paths;
    };
  seen = look ./package-set.nix [
    [ "plain" ]
    [ "nested" ]
    [ "nested" "Inner" ]
    [ "nested" "Inner" "deep" ]
    [ "text" ]
    [ "removed" ]
    [ "throwingSet" "inside" ]
    [ "nope" ]
    [ "text" "nope" ]
    # Unfree packages throw no earlier than when they are instantiated.
    [ "unfree" ]
  ];
  doors = look ./like-nixpkgs.nix [
    [ "pkgs" ]
    [ "pkgsCross" "riscv64" ]
    [ "python3Packages" "pkgs" ]
    [ "python3Packages" "requests" ]
  ];
  kind = kind: { inherit kind; };
  set =
    names:
    kind "set"
    // {
      inherit names;
      recurse = false;
    };
  expected = [
    (kind "package")
    (set [ "Inner" ])
    (set [ "deep" ])
    (kind "package")
    (kind "other")
    (kind "refused")
    (kind "refused")
    (kind "refused")
    (kind "refused")
    (kind "package")
  ];
  all = builtins.head (look ./package-set.nix [ [ ] ]);
  broken = builtins.tryEval (look (builtins.toFile "set.nix" "throw \"no set\"") [ ]);
in
assert all == set (builtins.attrNames (import ./package-set.nix { system = "x86_64-linux"; }));
assert !broken.success;
assert map (one: one.kind) doors == [ "other" "other" "set" "package" ];
if seen == expected then
  "attributes.nix: ${toString (builtins.length seen)} paths as expected"
else
  throw (builtins.toJSON seen)
