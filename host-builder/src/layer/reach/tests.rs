//! Packages on a disk, below a folder of the test's.

use std::os::unix::fs::symlink;

use super::super::store_paths::hash_of;
use super::*;
use crate::closure::PathInfo;

struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// Writes a package of these files, with their texts; `-> ` makes a link.
    fn package(&self, name: &str, files: &[(&str, &str)]) -> StorePath {
        let digit = char::from_digit(name.len() as u32 % 10, 10).unwrap();
        let path = format!("/nix/store/{}-{name}", digit.to_string().repeat(32));
        let path: StorePath = path.parse().unwrap();
        let on_disk = path.on_disk(self.root());
        fs::create_dir_all(&on_disk).unwrap();
        for (file, text) in files {
            let file = on_disk.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, file).unwrap(),
                None => fs::write(file, text).unwrap(),
            }
        }
        path
    }

    /// The closure of the first package, in which all are.
    fn closure(&self, packages: &[&StorePath]) -> Closure {
        let info = |path: &StorePath| PathInfo {
            nar_hash: hash_of(self.root(), path),
            nar_size: 1,
            references: packages.iter().map(|&path| path.clone()).collect(),
        };
        let paths = packages.iter().map(|&path| (path.clone(), info(path)));
        Closure::new([packages[0].clone()], paths.collect()).unwrap()
    }

    /// Reads for a package.
    fn read(&self, package: &StorePath, closure: &Closure) -> Result<Reach, PackError> {
        let tree = read(self.root(), package, closure)?;
        Reach::read(self.root(), &[(package.clone(), &tree)], closure)
    }

    /// Reads for the first package; all are in its closure.
    fn reach(&self, packages: &[&StorePath]) -> Result<Reach, PackError> {
        self.read(packages[0], &self.closure(packages))
    }
}

fn names(trees: &[(StorePath, Tree)]) -> Vec<&str> {
    trees.iter().map(|(path, _)| path.name()).collect()
}

#[test]
fn modules_are_followed_to_the_last_and_interpreters_are_not() {
    let store = Store::new();
    let site = "lib/python3.13/site-packages";
    let module = |name: &str, needs: &[&StorePath]| {
        let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
        let file = format!("{site}/{name}.py");
        store.package(
            name,
            &[
                (file.as_str(), ""),
                ("bin/tool", ""),
                (PROPAGATED, &format!(" {} \n", needs.join("  "))),
            ],
        )
    };
    let python = store.package("py", &[("bin/python3", ""), (&format!("{site}/x"), "")]);
    let idna = module("idna", &[&python]);
    let outside = module("outside", &[]);
    // No module: what it propagates is for compilers.
    let other = module("otherwise", &[]);
    let library = store.package(
        "library",
        &[("lib/x.so", ""), (PROPAGATED, &other.to_string())],
    );
    let urllib3 = module("urllib", &[&library, &outside, &idna]);
    let requests = module("requests", &[&python, &urllib3]);
    let closure = [&requests, &python, &urllib3, &library, &idna, &other];
    let reach = store.reach(&closure).unwrap();
    assert_eq!(names(&reach.modules), ["urllib", "idna"]);
    // Nothing of it but modules.
    let Tree::Directory(entries) = &reach.modules[0].1 else {
        panic!("{reach:?}")
    };
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["lib"]);
    let file = Path::new(site).join("urllib.py");
    assert!(reach.modules[0].1.below(&file).is_some());

    assert_eq!(reach.linked, []);
}

#[test]
fn trees_behind_links_are_read_and_those_of_files_are_not() {
    let store = Store::new();
    let last = store.package("last1", &[("x/y", "")]);
    let deep = format!("-> {last}/x");
    let tools = store.package("tools12", &[("bin/tool", ""), ("bin/more", &deep)]);
    let file = store.package("file", &[("bin/file", "")]);
    let env = store.package(
        "env",
        &[
            ("bin", &format!("-> {tools}/bin")),
            ("share/file", &format!("-> {file}/bin/file")),
            ("share/gone", "-> /nix/store/nowhere"),
        ],
    );
    let reach = store.reach(&[&env, &tools, &last, &file]).unwrap();
    let mut found = names(&reach.linked);
    found.sort_unstable();
    assert_eq!(found, ["last1", "tools12"]);
    // What is not in the closure is not read.
    let reach = store.reach(&[&env, &file]).unwrap();
    assert_eq!(reach.linked, []);
}

#[test]
fn the_locale_counts_where_the_c_library_finds_it() {
    let store = Store::new();
    let locale = ("lib/locale/C.utf8/LC_CTYPE", "");
    let glibc = store.package("glibc", &[locale, ("lib/libc.so.6", "")]);
    let locales = store.package("locales1", &[locale]);
    assert!(store.reach(&[&glibc]).unwrap().has_utf8);
    assert!(!store.reach(&[&locales]).unwrap().has_utf8);
}

#[test]
fn what_was_changed_after_nix_made_it_is_not_read() {
    let store = Store::new();
    let file = "lib/python3.13/site-packages/y.py";
    let module = store.package("module", &[(file, "x = 1")]);
    let tools = store.package("tools", &[("bin/tool", "1")]);
    let package = store.package(
        "a",
        &[
            ("bin", &format!("-> {tools}/bin")),
            (PROPAGATED, &module.to_string()),
        ],
    );
    let closure = store.closure(&[&package, &module, &tools]);
    assert!(store.read(&package, &closure).is_ok());
    for (path, file) in [(&module, file), (&tools, "bin/tool")] {
        let file = path.on_disk(store.root()).join(file);
        let before = fs::read(&file).unwrap();
        fs::write(&file, "changed").unwrap();
        match store.read(&package, &closure) {
            Err(PackError::Altered(altered)) => assert_eq!(altered[0].path, *path),
            other => panic!("{other:?}"),
        }
        fs::write(&file, before).unwrap();
    }
}
