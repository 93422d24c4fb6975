# What builds can do to the machine, told by a derivation that a builder tries at its start. Its
# program is the builder's own (`nixgate probe-sandbox`), which tries to write to its inputs, to all
# that is mounted into the sandbox and to the folder that its output is in, looks as whom it runs, and
# calls the builder on loopback. It succeeds by saying what worked.
#
#   nix-build --no-out-link sandbox.nix --argstr unique "$RANDOM" \
#     --argstr folder /folder/with/program/and/libraries \
#     --argstr program nixgate --argstr arguments '["probe-sandbox","8081"]'
#
# To ask Nix for its settings would not do: a daemon has its own, and may take none from its clients.
{
  # Anything that was not tried before: what has been built is not built again.
  unique,
  # The program with all that it needs: in a sandbox there may be nothing else.
  folder,
  # Which file in there is run, and with which arguments (a JSON list); `@folder@` in one of these is
  # where the folder is.
  program,
  arguments,
  # Whether to try the other kind of build, which has the network: one whose output is known before.
  download ? "false",
}:

let
  files = builtins.path {
    path = /. + folder;
    name = "nixgate-probe";
  };
  # Nix gives builds its files in another way than its folders.
  file = builtins.toFile "nixgate-probe-input" "what a build must not change";
  known = {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" unique;
  };
in
derivation (
  {
    name = "nixgate-probe";
    system = builtins.currentSystem;
    builder = "${files}/${program}";
    args = map (builtins.replaceStrings [ "@folder@" ] [ "${files}" ]) (builtins.fromJSON arguments);
    inherit file unique;
    # Another machine's sandbox proves nothing of this one's.
    preferLocalBuild = true;
  }
  // (if download == "true" then known else { })
)
