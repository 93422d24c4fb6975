//! Runs inside a build (`nix/sandbox.nix`): tries what a build must not be able to do, and undoes at
//! once what worked.
//!
//! ```text
//!   $out            its report as JSON; of a fixed-output build, the fixed content
//!   /nix/store/…    its inputs: must not be writable
//!   mounts          other mounts in the sandbox (`sandbox-paths`): must not be writable
//!   /nix/store      writable, since $out is made in it; must not be the machine's
//!   127.0.0.1:PORT  the builder, which notices a connection
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use rustix::fs::{Access, OFlags, StatVfsMountFlags, access, major, minor, statvfs};

use super::report::{Identity, Report, outside};
use super::{STORE, UNTRIED, WITNESS};
use crate::closure::STORE_DIR;

/// For connecting to the builder: a network may drop packets without an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The file that it tries to make in a folder, and removes at once.
const TRIAL: &str = ".nixgate-probe";
/// Files and folders that are tried in each mounted folder: a system's /usr/bin has a few thousand.
const ENTRIES: usize = 5000;
/// Mounts of the sandbox itself.
const OWN: [&str; 3] = ["/proc", "/dev/pts", "/dev/shm"];

#[derive(Args)]
pub struct ProbeSandboxArgs {
    /// The builder's port on loopback
    port: u16,
    /// The output of a fixed-output build
    content: Option<String>,
}

/// # Errors
/// When this is no build, or the report can't be made or written.
pub(crate) fn probe_sandbox(arguments: &ProbeSandboxArgs) -> Result<()> {
    try_all(arguments).context(UNTRIED)
}

fn try_all(arguments: &ProbeSandboxArgs) -> Result<()> {
    let variable = |name: &'static str| {
        let value = std::env::var_os(name);
        let value = value.with_context(|| format!("${name} is not set: this is no build of Nix"));
        value.map(PathBuf::from)
    };
    let output = variable("out")?;
    let builder = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    // The builder notices it.
    drop(TcpStream::connect_timeout(&builder, CONNECT_TIMEOUT));
    let text = match &arguments.content {
        Some(content) => content.clone(),
        None => serde_json::to_string(&look(&output, &variable("NIX_BUILD_TOP")?)?)?,
    };
    fs::write(&output, text).with_context(|| output.display().to_string())
}

fn look(output: &Path, build_folder: &Path) -> Result<Report> {
    let user = outside(
        &fs::read_to_string("/proc/self/uid_map")?,
        rustix::process::geteuid().as_raw(),
    );
    let names = names(Path::new("/"))?;
    if names.contains(WITNESS) || !names.contains(STORE) {
        // This is no sandbox: further tries would touch the machine.
        return Ok(Report {
            root: names,
            user,
            ..Report::default()
        });
    }
    let store = Path::new(STORE_DIR);
    let inputs = store
        .read_dir()?
        .filter_map(|entry| Some(entry.ok()?.path()));
    let inputs = inputs.filter(|path| path != output && changeable(path));
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mounts = mount_points(&table).filter(|path| {
        let own = OWN.iter().map(Path::new).chain([build_folder]);
        let mut of_sandbox = own.chain([store]);
        path != Path::new("/") && !of_sandbox.any(|own| path.starts_with(own)) && changeable(path)
    });
    Ok(Report {
        root: names,
        user,
        store: match changes(store) {
            true => Some(Identity::of(store)?),
            false => None,
        },
        inputs: inputs.collect(),
        mounts: mounts.collect(),
    })
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let name =
        |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    folder.read_dir()?.map(name).collect()
}

/// Mount points in a table (proc(5)). Another mount may hide one; then that is tried.
fn mount_points(table: &str) -> impl Iterator<Item = PathBuf> {
    let point = |line: &str| line.split(' ').nth(4).map(unescaped);
    table.lines().filter_map(point)
}

/// The kernel writes white space and `\` as a `\` and three octal digits.
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or(("", part));
        let byte = u8::from_str_radix(digits, 8);
        plain.push(byte.map_or('\\', char::from));
        plain.push_str(rest);
    }
    plain.into()
}

/// Whether a file, a folder, or anything directly in the folder can be changed.
fn changeable(path: &Path) -> bool {
    let entries = path.read_dir().into_iter().flatten().flatten();
    changes(path) || entries.take(ENTRIES).any(|entry| changes(&entry.path()))
}

/// Tries to write to a file or a folder, and to change its permissions.
fn changes(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    let kind = metadata.file_type();
    // Writing reaches the program or the device behind it, on a read-only mount too. A pipe is harmless.
    if kind.is_socket() || kind.is_char_device() || kind.is_block_device() {
        let own = kind.is_char_device() && is_own_device(metadata.rdev());
        return !own && access(path, Access::WRITE_OK).is_ok();
    }
    // The kernel reports a running program as busy before it reports a read-only mount.
    if statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return false;
    }
    let written = match () {
        () if kind.is_dir() => make_file(path),
        // Only opens it.
        () if kind.is_file() => opened(path),
        // A link's target is tried itself, or does not exist.
        () => return false,
    };
    // Its owner could permit writing. This sets the permissions that it has already.
    worked(written)
        || fs::set_permissions(path, Permissions::from_mode(metadata.permissions().mode())).is_ok()
}

/// Whether a device is one that Nix gives every sandbox, by its numbers (the kernel's `devices.txt`).
fn is_own_device(device: u64) -> bool {
    matches!(
        (major(device), minor(device)),
        // null, zero, full, random, urandom
        (1, 3 | 5 | 7 | 8 | 9)
        // tty, console, ptmx
        | (5, 0..=2)
        // kvm
        | (10, 232)
    )
}

fn make_file(folder: &Path) -> io::Result<()> {
    let trial = folder.join(TRIAL);
    File::create_new(&trial)?;
    fs::remove_file(&trial)
}

fn opened(file: &Path) -> io::Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(flags.bits().cast_signed());
    options.open(file).map(drop)
}

/// Only a refusal by the system counts as one: with another error, such as a full disk or a running
/// program, another build may succeed.
fn worked(tried: io::Result<()>) -> bool {
    match tried {
        Ok(()) => true,
        Err(error) => !matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let table = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 254:0 /a /with\\040space\\134 ro,relatime shared:1 - ext4 /dev/vda rw
short
";
        let points: Vec<_> = mount_points(table).collect();
        assert_eq!(points, ["/", "/with space\\"].map(PathBuf::from));
    }

    #[test]
    fn changeable_files_are_found_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let file = folder.join("file");
        fs::write(&file, "original").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(folder, Permissions::from_mode(0o555)).unwrap();
        // The test's user owns both, so may change their rights.
        assert!(changes(&file) && changes(folder) && changeable(folder));
        assert_eq!(fs::read_to_string(&file).unwrap(), "original");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(folder)), (0o444, 0o555));
        assert_eq!(folder.read_dir().unwrap().count(), 1);
        assert!(!changes(Path::new("/nonexistent")));
    }

    #[test]
    fn a_socket_that_can_be_called_is_one_that_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(changes(&socket) && changeable(folder.path()));
        for own in ["null", "zero", "full", "random", "urandom", "tty"] {
            assert!(!changes(&Path::new("/dev").join(own)), "{own}");
        }
        use rustix::fs::makedev;
        // A disk has other numbers, and so has a device for network interfaces.
        assert!(is_own_device(makedev(10, 232)));
        assert!(!is_own_device(makedev(10, 200)) && !is_own_device(makedev(1, 1)));
    }

    #[test]
    fn only_a_refusal_by_the_system_counts() {
        use rustix::io::Errno;
        for (error, expected) in [
            (Errno::ACCESS, false),
            (Errno::PERM, false),
            (Errno::ROFS, false),
            (Errno::TXTBSY, true),
            (Errno::NOSPC, true),
        ] {
            assert_eq!(worked(Err(error.into())), expected, "{error}");
        }
    }
}
