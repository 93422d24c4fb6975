//! Files of every image that ordinary programs need.
//!
//! | path | for |
//! | --- | --- |
//! | `/tmp`, mode 1777 | nearly everything |
//! | `/root`, mode 0700 | `HOME` of root: git, ssh and shells write there |
//! | `/usr/bin/env` | `#!/usr/bin/env`; only when a package brings `bin/env` |
//! | `/etc/passwd`, `/etc/group` | `whoami`, ssh and git over ssh fail for a user without a name |
//! | `/etc/nsswitch.conf` | without it, some programs ask DNS before `/etc/hosts` |
//!
//! A package's own file wins.

use std::path::Path;

use super::root_tree::{RootEntry, RootTree};

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
";

/// The group of `nobody` has both names that programs look for.
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

/// Adds these files, unless a package has them.
pub(super) fn add(root: &mut RootTree) {
    root.put_directory(Path::new("tmp"), 0o1777);
    root.put_directory(Path::new("root"), 0o700);
    for (path, text) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/nsswitch.conf", NSSWITCH),
    ] {
        root.put_if_absent(Path::new(path), RootEntry::File(text));
    }
    if let Some(env @ RootEntry::Symlink(_)) = root.get(Path::new("bin/env")).cloned() {
        root.put_if_absent(Path::new("usr/bin/env"), env);
    }
}
