# Renamed and removed names, in today's words.
self: super:
let
  renamed = old: new: self.lib.warnAlias "'${old}' has been renamed to/replaced by '${new}'" self.${new};
  removed = old: why: throw "'${old}' has been removed ${why}";
in
{
  bashInteractive_5 = self.bashInteractive;
  openjdk = self.jdk;
  jdk21 = self.jdk;
  vimpager = removed "vimpager" "because it has been unmaintained since 2021"; # Added 2025-06-01
  python2 = throw "'python2' has been removed as it has reached its end of life upstream"; # Added 2026-01-01
  nodejs_14 = throw "nodejs_14 has been removed, as it has reached its end of life. Use nodejs_22 instead";
  docker_24 = throw "docker_24 has been removed, as it is no longer maintained upstream. Use a later version";
  hello-world = throw "'hello-world' has been renamed to/replaced by 'hello'"; # Converted to throw 2026-05-01
  gitAndTools = self // { recurseForDerivations = false; };
  ripgrep-old = renamed "ripgrep-old" "ripgrep";
}
