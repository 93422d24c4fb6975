# As nixpkgs has it: the loader and the libraries in `lib` of the first output, no `lib64`, and programs in
# another output, which is the one that is installed.
{ lib, stdenv }:
stdenv.mkDerivation {
  pname = "glibc";
  version = "2.42-67";
  outputs = [ "out" "bin" "dev" "static" "getent" ];
  installPhase =
    ''
      mkdir $out/lib $bin/bin
      echo 'echo ldd of this set' > $bin/bin/ldd
      chmod +x $bin/bin/ldd
    ''
    + (
      if stdenv.real == null then
        "echo loader > $out/lib/ld-linux-x86-64.so.2"
      else
        # The loader reads no folder of the image and no cache, but its own libraries, as that of nixpkgs. A
        # path in the store does not fit where the folder is compiled in: so that is one below `lib` that
        # only this package has.
        ''
          cp --dereference ${stdenv.real.glibc}/lib/*-linux-gnu/*.so.? $out/lib
          rm $out/lib/libgcc_s.so.1
          chmod u+w $out/lib/*
          own=$out/lib/own-of-the-glibc
          mkdir $own
          for library in $out/lib/*.so.?; do ln -s ../''${library##*/} $own; done
          LC_ALL=C sed --null-data --in-place \
            --expression 's,/usr/lib/x86_64-linux-gnu/,/nix/nil/x86_64-linux-gnu/,' \
            --expression 's,/lib/x86_64-linux-gnu/,/lib/own-of-the-glibc/,' \
            --expression 's,^/lib/$,/nil/,' \
            --expression 's,^/usr/lib/$,/nix/nil/,' \
            --expression 's,^/etc/ld.so.cache$,/nix/ld.so.cache,' \
            $out/lib/ld-linux-x86-64.so.2
        ''
    );
  meta = { description = "GNU C Library"; license = lib.licenses.gpl3Plus; };
}
