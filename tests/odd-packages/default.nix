# Packages of shapes that real packages have, over the embedded set, whose folder is `debian`. In brackets: real
# packages of the shape. What an image of each must be like is in tests/e2e/shapes.rs.
{ system ? builtins.currentSystem, debian ? ./debian, ... }:
let
  set = import debian { inherit system; };
  # `program <path> <word>` writes one that says a word.
  package =
    name: script:
    derivation {
      name = "${name}-1";
      pname = name;
      version = "1";
      inherit system;
      builder = "/bin/bash";
      PATH = "/usr/bin:/bin";
      sh = "${set.bash}/bin/bash";
      args = [
        "-c"
        ''
          set -e
          program() {
            mkdir -p $(dirname $1)
            printf '#!%s\necho %s\n' $sh $2 >$1
            chmod +x $1
          }
          ${script}
        ''
      ];
    };
  python = "python${set.python3Packages.six.python}";
in
set
// rec {
  # A folder at the top that is a link, into the package [jdk]. One name is before those of other packages.
  jdk-like = package "jdk-like" "program $out/lib/openjdk/bin/java java; ln -s $out/lib/openjdk/bin $out/bin";
  a-jdk-like = package "a-jdk-like" "program $out/lib/openjdk/bin/ajava ajava; ln -s lib/openjdk/bin $out/bin";
  # [busybox; packages with sbin -> bin].
  with-sbin = package "with-sbin" "program $out/bin/box box; program $out/sbin/ifconf ifconf";
  a-sbin-link = package "a-sbin-link" "program $out/bin/alinked alinked; ln -s bin $out/sbin";
  z-sbin-link = package "z-sbin-link" "program $out/bin/zlinked zlinked; ln -s bin $out/sbin";
  a-etc-link = package "a-etc-link" "mkdir -p $out/real/etc; echo hi >$out/real/etc/hi; ln -s $out/real/etc $out/etc";
  a-tmp-link = package "a-tmp-link" "mkdir -p $out/bin; ln -s /var/tmp $out/tmp; ln -s /home $out/root";
  a-proc-link = package "a-proc-link" "mkdir -p $out/x; for name in proc dev sys run; do ln -s x $out/$name; done";
  # Links into another package, for the folder and for all [buildEnv, symlinkJoin, wrapped programs].
  a-env-like = package "a-env-like" "mkdir $out; ln -s ${jdk-like}/bin $out/bin; ln -s ${a-etc-link}/real $out/share";
  a-link-output = package "a-link-output" "ln -s ${with-sbin} $out";
  # Below the top, and with a file in the way.
  man-link = package "man-link" "mkdir -p $out/man/man1 $out/share; echo l >$out/man/man1/l.1; ln -s ../man $out/share/man";
  man-real = package "man-real" "mkdir -p $out/share/man/man1; echo r >$out/share/man/man1/r.1; echo x >$out/lib";
  a-single-file = package "a-single-file" "echo text >$out";
  # One file, as in nixpkgs.
  cacert = package "nss-cacert" "mkdir -p $out/etc/ssl/certs; cat ${set.cacert}/etc/ssl/certs/ca-bundle.crt >$out/etc/ssl/certs/ca-bundle.crt";
  # A module, one that needs it, and a module of another Python.
  pymod = package "pymod" "mkdir -p $out/lib/${python}/site-packages; echo x = 42 >$out/lib/${python}/site-packages/pymod.py";
  pyneeds = package "pyneeds" ''
    mkdir -p $out/lib/${python}/site-packages $out/nix-support
    echo 'from pymod import x' >$out/lib/${python}/site-packages/pyneeds.py
    echo '${pymod}' >$out/nix-support/propagated-build-inputs
  '';
  pyold = package "pyold" "mkdir -p $out/lib/python3.4/site-packages; echo x = 41 >$out/lib/python3.4/site-packages/pymod.py";
  # A C library with the locale C.UTF-8 [glibc].
  libc-like = package "libc-like" "mkdir -p $out/lib/locale/C.utf8; touch $out/lib/libc.so.6 $out/lib/locale/C.utf8/LC_CTYPE";
  # A loader and the libraries of a compiler, one of them in another output, `lib64 -> lib` [gcc], and a link out
  # of the store.
  libgcc-like = package "libgcc-like" "mkdir -p $out/lib; touch $out/lib/libgcc_s.so.1";
  foreign-like = package "foreign-like" ''
    mkdir -p $out/lib $out/share
    touch $out/lib/ld-linux-x86-64.so.2 $out/lib/libstdc++.so.6
    ln -s ${libgcc-like}/lib/libgcc_s.so.1 $out/lib
    ln -s lib $out/lib64
    ln -s /etc/hosts $out/share/hosts
  '';
  fonts = package "fonts" "mkdir -p $out/share/fonts; echo f >$out/share/fonts/f.ttf";
  whiteout = package "whiteout" "mkdir -p $out/share; echo x >$out/share/.wh.foo";
}
