# Whether builds are sandboxed, told by two derivations that a builder tries
# at its start:
#
#                  in a sandbox       without one        no sandbox to be had
#   builds         is built           is built           fails, and Nix says why
#   unsandboxed    fails              is built           fails
#
#   nix-build --no-out-link --option sandbox true --option sandbox-fallback false \
#     sandbox.nix -A builds --argstr unique "$RANDOM"
#
# To ask Nix for its settings would not do: a daemon has its own, and may take
# none from its clients.
{
  # Anything that was not tried before: what has been built is not built again.
  unique,
}:

{
  # Of what Nix can do itself, so that it needs no program in the sandbox.
  builds = derivation {
    name = "nixgate-probe";
    system = builtins.currentSystem;
    builder = "builtin:buildenv";
    derivations = [ ];
    manifest = "/dev/null";
    inherit unique;
  };

  # Every machine has /sys, and no sandbox unless it is told to (sandbox-paths).
  unsandboxed = derivation {
    name = "nixgate-probe-unsandboxed";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [
      "-c"
      "test -e /sys/kernel && echo >$out"
    ];
    inherit unique;
  };
}
