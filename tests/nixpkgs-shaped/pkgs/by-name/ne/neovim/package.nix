{ stdenv, neovim-unwrapped }:
stdenv.mkDerivation {
  pname = "neovim";
  inherit (neovim-unwrapped) version meta;
  allowSubstitutes = false;
  preferLocalBuild = true;
  installPhase = "mkdir $out/bin; ln -s ${neovim-unwrapped}/bin/nvim $out/bin/nvim";
  passthru.unwrapped = neovim-unwrapped;
}
