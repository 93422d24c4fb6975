# Whether builds are sandboxed, told by a derivation that a builder tries at
# its start. It succeeds by saying what it sees of the root folder:
#
#   in a sandbox           build dev etc nix proc tmp, and what sandbox-paths adds
#   without one            sys too, which every machine has
#   no sandbox to be had   it fails, and Nix says why
#
#   nix-build --no-out-link --option sandbox true --option sandbox-fallback false \
#     sandbox.nix --argstr unique "$RANDOM"
#
# To ask Nix for its settings would not do: a daemon has its own, and may take
# none from its clients.
{
  # Anything that was not tried before: what has been built is not built again.
  unique,
}:

# Of what Nix can do itself, so that it needs no program in the sandbox: a
# folder of links to all that is in the root folder.
derivation {
  name = "nixgate-probe";
  system = builtins.currentSystem;
  builder = "builtin:buildenv";
  # One package that is active, of priority 5, with one output.
  derivations = [
    "true"
    "5"
    "1"
    "/"
  ];
  manifest = "/dev/null";
  # Another machine's sandbox proves nothing of this one's.
  preferLocalBuild = true;
  inherit unique;
}
