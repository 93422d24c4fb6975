//! The units and the pod that are shipped, each run with what it says: a builder before a Nix daemon.
//!
//! ```text
//!   this machine's own files, below a folder in memory that takes what is written
//!     ├── booted by systemd-nspawn: nix-daemon.service as Nix ships it, with the drop-in of ours,
//!     │   nixgate.service, and trial.service, which asks the builder, writes down what it was
//!     │   answered, and powers off
//!     └── run by podman: a container for the daemon and one for the builder, in one network
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nixgate_tests::live::process::{Process, run};
use nixgate_tests::live::{install, poll, scratch};
use tempfile::TempDir;

/// As Nix ships them.
const DAEMON: [(&str, &str); 2] = [
    (
        "nix-daemon.socket",
        "[Socket]\nListenStream=/nix/var/nix/daemon-socket/socket\n",
    ),
    (
        "nix-daemon.service",
        "[Unit]\nRequires=nix-daemon.socket\n[Service]\nExecStart=/usr/bin/nix-daemon --daemon\n\
         KillMode=process\nLimitNOFILE=65536\n",
    ),
];

const TRIAL: &str = "[Unit]\nAfter=basic.target\n[Service]\nType=oneshot\n\
    ExecStart=/bin/bash /trial/run\nExecStopPost=/bin/systemctl --force --force poweroff\n";

const NIX_CONF: &str = "build-users-group = nixbld\nallowed-users = nixgate\nsandbox = true\n\
    substituters =\nsandbox-paths = /bin /usr /lib /lib64\n";

/// What is built: a package, and a download that looks around.
const SET: &str = r#"{ system ? "x86_64-linux" }:
let
  package = name: script: extra: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin";
    args = [ "-c" script ];
  } // extra);
in
{
  plain = package "plain" "mkdir $out; touch /usr/was-here $out/plain; true" { };
  cacert = package "cacert" "mkdir $out" { };
  iana-etc = package "iana-etc" "mkdir $out" { };
  caller = package "caller" ''
    for address in 127.0.0.1:9901 169.254.169.254:80; do
      curl --silent -m 3 http://$address/ && echo "reached $address" >&2
    done
    echo nothing more >&2; exit 1
  '' {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "never";
  };
}
"#;

/// Asks the builder for the package and the download.
const ASK: &str = r#"
for second in $(seq 30); do
  curl --silent --fail 127.0.0.1:8081/readyz && break
  sleep 1
done
for name in plain caller; do
  curl --silent --location --max-redirs 20 --header 'Nixgate-Token: secret' --output "/trial/$name" \
    --write-out '%{http_code}' "127.0.0.1:8081/v2/$name/manifests/latest" >"/trial/$name.status"
done
"#;

/// The trial under systemd, as root and unconfined.
const UNDER_SYSTEMD: &str = r#"
exec >/trial/log 2>&1
set -x
mkdir -p /nix/store /nix/var/nix/daemon-socket
ip address add 169.254.169.254/32 dev lo
for place in 127.0.0.1:9901 169.254.169.254:80; do
  mkdir "/tmp/${place%:*}"
  python3 -m http.server --bind "${place%:*}" --directory "/tmp/${place%:*}" "${place#*:}" 2>"/trial/called-${place%:*}" &
done
systemctl daemon-reload
systemctl start nix-daemon.socket nixgate.service
. /trial/ask
# Who is not confined reaches them.
for url in http://127.0.0.1:9901/ http://169.254.169.254/; do
  curl --silent --output /dev/null --retry 20 --retry-connrefused "$url"
done
test ! -e /usr/was-here || : >/trial/usr-was-written
grep -E '^(Uid|Cap|NoNewPrivs|Seccomp)' "/proc/$(systemctl show --property MainPID --value nixgate)/status" >/trial/status
systemd-analyze security --no-pager nixgate.service | tail -n 2
journalctl --no-pager --unit nixgate --unit nix-daemon >/trial/journal
"#;

/// Mounts the machine's files at `$root`, with what is written kept in memory.
const MOUNT: &str = r#"
trial=$1 files=$2 memory=$3 name=$4
mount -t tmpfs tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
root=$memory/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$memory/upper,workdir=$memory/work" "$root"
mkdir -p "$root/nix"
mount -t tmpfs -o mode=755 tmpfs "$root/nix"
cp -a "$files/." "$root/"
cat "$trial/passwd" >>"$root/etc/passwd"
cat "$trial/group" >>"$root/etc/group"
"#;

const BOOT: &str = r#"
: >"$root/etc/machine-id"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory="$root" --machine="$name" --register=no --keep-unit \
  --private-network --capability=CAP_BPF --system-call-filter=bpf --console=pipe --bind="$trial:/trial" --boot systemd.unit=trial.service
"#;

/// What the pod says of each container, given to podman. The rights of the daemon are in `$5`.
const CONTAINERS: &str = r#"
mkdir -p "$memory/nix/store" "$memory/nix/var" "$memory/state"
chmod 755 "$memory" && chmod 1777 "$root/tmp"
mkdir -p "$root/var/lib/nixgate"
chown 30990:30990 "$memory/state"
podman=(podman --root "$memory/podman" --runroot "$memory/run" --tmpdir "$memory/run/tmp" --storage-driver overlay
  --runtime runc --cgroup-manager cgroupfs --events-backend file)
usual=(--read-only --read-only-tmpfs=false --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --tmpfs /tmp:notmpcopyup,mode=1777)
trap '"${podman[@]}" logs daemon builder >"$trial/journal" 2>&1; "${podman[@]}" rm --force --time 1 --depend daemon' EXIT
"${podman[@]}" run --detach --name daemon "${usual[@]}" --network none --cap-drop ALL --cap-add "$5" \
  --security-opt unmask=ALL --tmpfs /root:notmpcopyup --volume "$memory/nix:/nix" --volume "$memory/state:/var/lib/nixgate:ro" \
  --rootfs "$root" nix-daemon
"${podman[@]}" run --detach --name builder "${usual[@]}" --network container:daemon --cap-drop ALL \
  --security-opt no-new-privileges --user 30990:30990 --env NIX_REMOTE=daemon --env HOME=/var/lib/nixgate \
  --env NIXGATE_STATE_DIR=/var/lib/nixgate/builder --env STORAGE_PATH=/var/lib/nixgate/storage \
  --env-file "$root/etc/nixgate/builder.env" --volume "$memory/nix:/nix:ro" --volume "$memory/state:/var/lib/nixgate" \
  --rootfs "$root" nixgate serve
sed "s,/trial,$trial,g" "$trial/ask" >"$memory/ask"
nsenter --net --target "$("${podman[@]}" inspect --format '{{.State.Pid}}' daemon)" bash "$memory/ask"
grep -E '^(Uid|Cap|NoNewPrivs|Seccomp)' "/proc/$("${podman[@]}" inspect --format '{{.State.Pid}}' builder)/status" >"$trial/status"
test ! -e "$root/usr/was-here" || : >"$trial/usr-was-written"
"#;

/// A machine of a test's own.
struct Machine {
    folder: TempDir,
    memory: TempDir,
}

impl Machine {
    fn new() -> Result<Self> {
        let machine = Self {
            folder: scratch::folder("confined-")?,
            memory: scratch::run_folder()?,
        };
        let mut version = Command::new("nix");
        let version = run(version.arg("--version"))?;
        let version = version.split_whitespace().last().context("a version")?;
        let settings = format!(
            "NIXGATE_TOKEN=secret\nNIXERY_PKGS_PATH=/srv/set\nNIXGATE_PATCHED_NIX={version}\n"
        );
        machine.file("etc/nix/nix.conf", NIX_CONF)?;
        machine.file("etc/nixgate/builder.env", &settings)?;
        machine.file("srv/set/default.nix", SET)?;
        machine.trial("ask", ASK)?;
        machine.users()?;
        let binary = machine.file("usr/local/bin/nixgate", "")?;
        fs::copy(install::builder()?, &binary)?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
        Ok(machine)
    }

    /// A file of the machine's.
    fn file(&self, path: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join("files").join(path);
        write(&path, text)?;
        Ok(path)
    }

    /// A file that the trial reads.
    fn trial(&self, name: &str, text: &str) -> Result<()> {
        write(&self.folder.path().join("trial").join(name), text)
    }

    /// The builder's, and those that Nix builds as. This machine may have some of these names: the
    /// first of a name counts.
    fn users(&self) -> Result<()> {
        let mut passwd = "nixgate:x:30990:30990::/var/lib/nixgate:/usr/sbin/nologin\n".to_owned();
        let mut members = Vec::new();
        for number in 30_001..30_005 {
            let name = format!("nixbld{number}");
            passwd += &format!("{name}:x:{number}:30000::/var/empty:/usr/sbin/nologin\n");
            members.push(name);
        }
        let group = format!(
            "nixgate:x:30990:\nnixbuilders:x:30000:{}\n",
            members.join(",")
        );
        self.trial("passwd", &passwd)?;
        self.trial("group", &group)?;
        self.file(
            "etc/nix/nix.conf",
            &NIX_CONF.replace("nixbld", "nixbuilders"),
        )?;
        Ok(())
    }

    /// Runs a script on it to its end; what it prints.
    fn run(&self, script: &str, argument: &str) -> Result<String> {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "bash",
            "-euc",
            &format!("{MOUNT}{script}"),
            "bash",
        ]);
        command.args(["trial", "files"].map(|name| self.folder.path().join(name)));
        command.arg(self.memory.path());
        command.arg(format!("nixgate-{}", std::process::id()));
        command.arg(argument);
        let mut process = Process::start(&command, &self.folder.path().join("log"))?;
        poll::until("the machine has done its trial", || {
            process.ended().ok().flatten()
        })?;
        Ok(process.log())
    }

    /// What the trial wrote.
    fn wrote(&self, name: &str) -> String {
        let path = self.folder.path().join("trial").join(name);
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Asserts what is true of both: packages are built, nothing of the machine is written, and the
    /// builder has no right. `told` is for whoever reads why not.
    fn built(&self, told: &str) {
        let told = format!(
            "{told}\n{}\n{}\n{}",
            self.wrote("log"),
            self.wrote("journal"),
            self.wrote("caller")
        );
        assert_eq!(
            self.wrote("plain.status"),
            "200",
            "{}\n{told}",
            self.wrote("plain")
        );
        assert_eq!(self.wrote("caller.status"), "403", "{told}");
        assert!(self.wrote("caller").contains("caller.drv"), "{told}");
        assert!(
            !self.folder.path().join("trial/usr-was-written").exists(),
            "{told}"
        );
        let status = self.wrote("status");
        for right in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(right), "{right}: {status}\n{told}");
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(path, text).with_context(|| path.display().to_string())
}

fn shipped(file: &str) -> Result<String> {
    let path = install::root().join("host-builder").join(file);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn under_the_shipped_units_packages_are_built_and_downloads_reach_nobody_here() -> Result<()> {
    let machine = Machine::new()?;
    for (unit, text) in DAEMON.iter().chain(&[("trial.service", TRIAL)]) {
        machine.file(&format!("etc/systemd/system/{unit}"), text)?;
    }
    for unit in ["nixgate.service", "nix-daemon.service.d/nixgate.conf"] {
        let text = shipped(&format!("systemd/{unit}"))?;
        machine.file(&format!("etc/systemd/system/{unit}"), &text)?;
    }
    machine.trial("run", UNDER_SYSTEMD)?;
    let told = machine.run(BOOT, "")?;
    machine.built(&told);
    for address in ["127.0.0.1", "169.254.169.254"] {
        let calls = machine.wrote(&format!("called-{address}"));
        // Once, by the trial itself.
        assert_eq!(calls.matches("\"GET / ").count(), 1, "{address}: {calls}");
    }
    Ok(())
}

#[test]
fn with_the_rights_of_the_shipped_pod_packages_are_built() -> Result<()> {
    let machine = Machine::new()?;
    let pod = shipped("kubernetes/builder.yaml")?;
    let rights = pod
        .lines()
        .find_map(|line| line.trim().strip_prefix("add: ["));
    let rights = rights.context("what the daemon may")?.trim_end_matches(']');
    let told = machine.run(CONTAINERS, &rights.replace(' ', ""))?;
    machine.built(&told);
    Ok(())
}
