//! What an image has besides its packages, so that ordinary programs feel at home.
//!
//! | path | for |
//! | --- | --- |
//! | `/tmp`, mode 1777 | nearly everything |
//! | `/root`, mode 0700 | `HOME` of root: git, ssh and shells want to write there |
//! | `/usr/bin/env` | `#!/usr/bin/env`; only when a package brings `bin/env` |
//! | `/etc/passwd`, `/etc/group` | `whoami`, ssh and git over ssh fail for a user without a name |
//! | `/etc/nsswitch.conf` | without it, some programs ask DNS before `/etc/hosts` |
//!
//! A package that brings one of the files knows better, and keeps it.

use std::path::Path;

use super::root_tree::{Entry, RootTree};

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
";

/// The group of `nobody` goes by both names: some programs look for one, some for the other.
const GROUP: &str = "\
root:x:0:
nogroup:x:65534:
nobody:x:65534:
";

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
services: files
protocols: files
";

/// Adds it all to what the packages bring.
pub(super) fn add(root: &mut RootTree) {
    root.put_directory(Path::new("tmp"), 0o1777);
    root.put_directory(Path::new("root"), 0o700);
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
    ] {
        root.put_if_absent(Path::new(path), Entry::File(text));
    }
    if let Some(env @ Entry::Symlink(_)) = root.get(Path::new("bin/env")).cloned() {
        root.put_if_absent(Path::new("usr/bin/env"), env);
    }
}
