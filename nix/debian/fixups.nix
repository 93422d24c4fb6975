# What single packages need beyond deb.nix: attribute -> Bash, run last by
# unpack.sh in the output, with its `locate`, `wrap` and `write_wrapper`.
#
# Mostly it is this: a program has /usr/share/… compiled in, which no image has.
# Where a variable says so too, a wrapper sets it; where none does, a path of the
# same length ("/////share/…") takes its place, which leads to the links that an
# image has at its root.
{
  bash = ''
    ln -s bash bin/sh
  '';
  bashInteractive = ''
    ln -s bash bin/sh
  '';

  # The bundle is made at installation, on Debian; the second name is the one
  # that Debian's programs have compiled in.
  cacert = ''
    mkdir -p etc/ssl/certs
    cat share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-bundle.crt
    ln -s ca-bundle.crt etc/ssl/certs/ca-certificates.crt
    rm -rf bin share/ca-certificates
  '';

  cowsay = ''
    wrap cowsay COWPATH="$out/share/cowsay/cows" \
      PERL5LIB+="$out/share/perl5:$out/lib/$triplet/perl5/$(cd lib/$triplet/perl5 && echo *)"
    rm -f bin/cowthink
    ln -s cowsay bin/cowthink
  '';

  figlet = ''
    [[ ! -e bin/figlet-figlet ]] || mv bin/figlet-figlet bin/figlet
    wrap figlet FIGLET_FONTDIR="$out/share/figlet"
  '';

  file = ''
    wrap file MAGIC="$out/lib/file/magic.mgc"
  '';

  gawk = ''
    ln -s gawk bin/awk
  '';

  # gcc finds its own files relative to itself. The rest it is told by a specs
  # file: where the headers are, and the loader and C library that the programs
  # shall run with.
  gcc = ''
    own=$(echo lib/gcc/$triplet/*)
    libc=$(dirname "$(locate /lib/$triplet/libc.so.6)")
    loader=$(echo "$libc"/ld-linux-*.so.*)
    cat >"$own/nix.specs" <<SPECS
    *cpp:
    + -idirafter $out/include -idirafter $out/include/$triplet

    *link:
    + %{!static:%{!static-pie:%{!shared:-dynamic-linker $loader} -rpath $libc}} -L$libc

    SPECS
    # The names gcc, gcc-12 … are links to this one. A file called just `specs`
    # would need no script, but replaces what is built in.
    driver=$(readlink --canonicalize bin/gcc)
    mv "$driver" "$own/driver"
    printf '#!%s\nexec -a "$0" %s -specs=%s "$@"\n' \
      "$(locate bin/bash)" "$out/$own/driver" "$out/$own/nix.specs" >"$driver"
    chmod 755 "$driver"
    for program in bin/$triplet-{as,ld,ld.bfd,nm,ar,ranlib,strip,objdump}; do
      ln -s "$out/$program" "$own/''${program#bin/$triplet-}"
    done
    # Linker scripts name the C library's parts by their paths on Debian.
    for script in $(grep --files-with-matches 'GNU ld script' lib/$triplet/lib{c,m}.{so,a}); do
      for path in $(grep --only-matching '/[^ ]*\.\(so\|a\)[.0-9]*' "$script"); do
        sed -i "s|\([( ]\)$path |\1$(locate "$path") |" "$script"
      done
    done
    ln -s gcc bin/cc
  '';

  # git starts itself and its helpers from lib/git-core, where the program goes
  # for that reason: helpers then run without the wrapper. Some of them are shell
  # scripts, which use what no Debian machine lacks.
  git = ''
    rm -f lib/git-core/git
    mv bin/git lib/git-core/git
    find lib/git-core -type l -lname '*bin/git' -exec ln -sf git {} \;
    write_wrapper "$out/bin/git" "$out/lib/git-core/git" \
      GIT_EXEC_PATH="$out/lib/git-core" GIT_TEMPLATE_DIR="$out/share/git-core/templates" \
      PATH+="$(dirname "$(locate bin/sed)"):$(dirname "$(locate bin/grep)"):$(dirname "$(locate bin/uname)")"
  '';

  nano = ''
    sed -i "s,/usr/share/nano,$out/share/nano," etc/nanorc
  '';

  nodejs = ''
    for library in lib/$triplet/libnode.so.*; do
      [[ ! -f $library || -L $library ]] || sed -i 's,/usr/share/nodejs/,/////share/nodejs/,g' "$library"
    done
    # npm is a package of its own.
    rm -f bin/nodejs
    ln -s node bin/nodejs
  '';

  openssl = ''
    wrap openssl OPENSSL_CONF="$out/etc/ssl/openssl.cnf" \
      OPENSSL_MODULES="$(locate lib/$triplet/ossl-modules)"
  '';

  # PERL5LIB rather than -I: perl programs start others by the path of perl
  # itself. The last two are where an image has what its packages bring.
  perl = ''
    version=$(cd share/perl && echo [0-9].[0-9]*.[0-9]*)
    abi=''${version%.*}
    wrap perl PERL5LIB+="$out/lib/$triplet/perl/$abi:$out/share/perl/$abi:$out/lib/$triplet/perl-base:/share/perl5:/lib/$triplet/perl5/$abi"
    ln -sf perl "bin/perl$version"
    # The cpan client and documentation would write to the machine.
    rm -f bin/cpan*
  '';

  # tmux refuses to start without a UTF-8 locale, which is libc-bin's.
  tmux = ''
    find bin etc share/libc-bin -mindepth 1 ! -name tmux -delete 2>/dev/null || true
    wrap tmux LOCPATH="$out/lib/locale"
  '';

  vim = ''
    ln -sf vim.tiny bin/vim
    ln -sf vim.tiny bin/vi
  '';

  # debianutils holds more; nothing of it belongs to `which`.
  which = ''
    mv bin/which.debianutils bin/which
    find bin -type f ! -name which -delete
    find bin -type l -delete
  '';
}
