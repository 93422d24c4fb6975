# As nixpkgs has it: the libraries that programs need in `lib`, and libgcc_s in an output of its own.
{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "gcc";
  version = "15.2.0";
  outputs = [ "out" "man" "info" "lib" "libgcc" ];
  installPhase =
    ''
      mkdir $out/bin $lib/lib $libgcc/lib
      echo gcc > $out/bin/gcc
      ln -s lib $lib/lib64
    ''
    + (
      if stdenv.real == null then
        "echo libstdc++ > $lib/lib/libstdc++.so.6; echo libgcc_s > $libgcc/lib/libgcc_s.so.1"
      else
        ''
          cp --dereference ${stdenv.real.gcc-unwrapped.lib}/lib/*-linux-gnu/libstdc++.so.6 $lib/lib
          cp --dereference ${stdenv.real.glibc}/lib/*-linux-gnu/libgcc_s.so.1 $libgcc/lib
        ''
    )
    + "\nln -s $libgcc/lib/libgcc_s.so.1 $lib/lib";
  meta = { description = "GNU Compiler Collection"; license = lib.licenses.gpl3Plus; };
}
