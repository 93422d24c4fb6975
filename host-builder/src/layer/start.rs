//! Where a recipe's containers start, and as whom.
//!
//! | a recipe has | the image has |
//! | --- | --- |
//! | `workdir` | that directory, of the recipe's user; the directories above it are root's |
//! | a `user` by number | a line of `/etc/passwd`, one of `/etc/group`, and `/home/user` |
//!
//! Without the line, ssh ends with "No user exists for uid 1000", git over ssh with it, and runtimes set
//! `HOME=/`, where the user can't write. A package's own `/etc/passwd` stays as it is: then there is neither
//! line nor home.
//!
//! The number of a name is known for those of the image's own `/etc/passwd`. A package's may have others; the
//! file is not read, since an image is also made where the package itself is not.

use std::path::{Component, Path, PathBuf};

use super::base;
use super::root_tree::{Owner, RootEntry, RootTree};

const WORKDIR_MODE: u32 = 0o755;
const HOME_MODE: u32 = 0o700;
const HOME: &str = "home/user";

const NOBODY: u32 = 65534;

/// The largest number of a user that runtimes take.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// What a recipe says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// `user` or `user:group`, each a name or a number.
    pub(crate) user: Option<String>,
    /// An absolute path without `..`.
    pub(crate) workdir: Option<String>,
}

impl Start {
    /// Adds what the image has for it. Returns what it can't have, in words for the administrator.
    pub(crate) fn prepare(&self, root: &mut RootTree) -> Vec<String> {
        let mut remarks = Vec::new();
        let user = self.user.as_deref().unwrap_or("root");
        let owner = owner(user);
        if let Some(owner) = owner {
            add_user(root, owner);
        }
        if let Some(workdir) = &self.workdir {
            remarks.extend(add_workdir(root, workdir, user, owner));
        }
        remarks
    }
}

/// Whose numbers `user` or `user:group` has. Without a group, it is what runtimes take: that of
/// `/etc/passwd`, which for a number is root's.
fn owner(user: &str) -> Option<Owner> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let uid = number(user, &[("root", 0), ("nobody", NOBODY)])?;
    let gid = match group {
        Some(group) => number(
            group,
            &[("root", 0), ("nobody", NOBODY), ("nogroup", NOBODY)],
        )?,
        None if uid == NOBODY => NOBODY,
        None => 0,
    };
    Some(Owner { uid, gid })
}

fn number(text: &str, names: &[(&str, u32)]) -> Option<u32> {
    let known = names.iter().find(|(name, _)| *name == text);
    let id = known.map_or_else(|| text.parse().ok(), |(_, id)| Some(*id))?;
    (id <= MAX_ID).then_some(id)
}

/// Adds a user to the image's own `/etc/passwd`, unless it is there.
fn add_user(root: &mut RootTree, Owner { uid, gid }: Owner) {
    if matches!(uid, 0 | NOBODY) {
        return;
    }
    let line = format!("user:x:{uid}:{gid}:user:/{HOME}:/bin/sh\n");
    if !append(root, "etc/passwd", &line) {
        return;
    }
    if !matches!(gid, 0 | NOBODY) {
        append(root, "etc/group", &format!("user:x:{gid}:\n"));
    }
    root.put_owned_directory(Path::new(HOME), HOME_MODE, Owner { uid, gid });
}

/// Appends to a file of the image's own. Returns whether it is one.
fn append(root: &mut RootTree, path: &str, line: &str) -> bool {
    let text = root.text_mut(Path::new(path));
    text.map(|text| text.push_str(line)).is_some()
}

fn add_workdir(
    root: &mut RootTree,
    workdir: &str,
    user: &str,
    owner: Option<Owner>,
) -> Option<String> {
    let names = Path::new(workdir).components();
    let path: PathBuf = names
        .filter(|name| matches!(name, Component::Normal(_)))
        .collect();
    if path.as_os_str().is_empty() || base::is_for_everybody(&path) {
        return None;
    }
    let made = root.put_owned_directory(&path, WORKDIR_MODE, owner.unwrap_or_default());
    match (made, root.get(&path)) {
        (true, _) if owner.is_none() => Some(format!(
            "{workdir} is root's: the image does not know the number of {user}. Write the recipe's user as \
             numbers, as in 1000:1000"
        )),
        (true, _) => None,
        (false, Some(RootEntry::Directory(there))) if Some(there.owner) == owner => None,
        (false, Some(RootEntry::Directory(_))) => Some(format!(
            "{workdir} is root's, and {user} can't write to it: the image has it anyway. Choose another \
             workdir for the recipe, such as /work"
        )),
        (false, _) => Some(format!(
            "{workdir} is not made: a package has a file or a link there. Containers start in it only if it \
             leads to a directory. Choose another workdir for the recipe, such as /work"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Tree, merge};

    fn start(user: &str, workdir: &str) -> Start {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Start {
            user: given(user),
            workdir: given(workdir),
        }
    }

    /// An image of one package with these files.
    fn image(files: &[&str]) -> RootTree {
        let file = Tree::File {
            executable: true,
            size: 1,
        };
        let mut trees = files.iter().map(|path| {
            let names = Path::new(path).iter().rev();
            names.fold(file.clone(), |below, name| {
                Tree::Directory([(name.into(), below)].into())
            })
        });
        let tree = trees.next().unwrap_or(Tree::Directory([].into()));
        let package = format!("/nix/store/{}-a", "0".repeat(32)).parse().unwrap();
        merge([(&package, &tree)], []).root
    }

    /// Owner and mode of a directory.
    fn directory(root: &RootTree, path: &str) -> (u32, u32, u32) {
        match root.get(Path::new(path)) {
            Some(RootEntry::Directory(directory)) => {
                (directory.owner.uid, directory.owner.gid, directory.mode)
            }
            other => panic!("{path} is {other:?}"),
        }
    }

    fn text(root: &RootTree, path: &str) -> String {
        match root.get(Path::new(path)) {
            Some(RootEntry::File(text)) => text.to_string(),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn the_workdir_is_the_user_s_and_what_is_above_is_root_s() {
        for (user, uid, gid) in [
            ("", 0, 0),
            ("root", 0, 0),
            ("1000", 1000, 0),
            ("1000:1000", 1000, 1000),
            ("1000:nogroup", 1000, NOBODY),
            ("nobody", NOBODY, NOBODY),
            ("65534", NOBODY, NOBODY),
            ("nobody:root", NOBODY, 0),
            ("root:7", 0, 7),
        ] {
            let mut root = image(&[]);
            let remarks = start(user, "/srv/work/").prepare(&mut root);
            assert_eq!(remarks, [""; 0], "{user}");
            assert_eq!(directory(&root, "srv"), (0, 0, 0o755), "{user}");
            assert_eq!(directory(&root, "srv/work"), (uid, gid, 0o755), "{user}");
        }
    }

    #[test]
    fn a_number_has_a_name_and_a_home() {
        let mut root = image(&[]);
        start("1000:100", "").prepare(&mut root);
        let passwd = text(&root, "etc/passwd");
        assert!(
            passwd.ends_with("\nuser:x:1000:100:user:/home/user:/bin/sh\n"),
            "{passwd}"
        );
        let group = text(&root, "etc/group");
        assert!(group.ends_with("\nuser:x:100:\n"), "{group}");
        assert_eq!(directory(&root, "home/user"), (1000, 100, 0o700));
        for (user, files) in [
            ("", &[][..]),
            ("0:0", &[]),
            ("nobody", &[]),
            ("someone", &[]),
            ("1000", &["etc/passwd"]),
        ] {
            let mut root = image(files);
            let before = root.clone();
            start(user, "").prepare(&mut root);
            assert_eq!(root, before, "{user}");
        }
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (user, workdir, files, words) in [
            (
                "postgres",
                "/work",
                &[][..],
                "/work is root's: the image does not know the number of postgres",
            ),
            (
                "3000000000",
                "/work",
                &[],
                "does not know the number of 3000000000",
            ),
            (
                "1000",
                "/share",
                &["share/x"],
                "/share is root's, and 1000 can't write to it",
            ),
            ("1000", "/etc", &[], "/etc is root's"),
            ("1000", "/root/", &[], "/root/ is root's"),
            (
                "1000",
                "/bin/git",
                &["bin/git"],
                "/bin/git is not made: a package has a file",
            ),
            ("", "/bin/git/x", &["bin/git"], "/bin/git/x is not made"),
        ] {
            let remarks = start(user, workdir).prepare(&mut image(files)).join("\n");
            assert!(remarks.contains(words), "{words} in {remarks:?}");
        }
        for (user, workdir) in [
            ("1000", "/"),
            ("1000", "/tmp"),
            ("1000", "//tmp/."),
            ("1000", "/home/user"),
            ("1000", "/proc/self"),
            ("1000", "/nix/store/x"),
            ("", "/share"),
        ] {
            let mut root = image(&["share/x"]);
            let remarks = start(user, workdir).prepare(&mut root);
            assert_eq!(remarks, [""; 0], "{workdir}");
        }
    }
}
