#!/usr/bin/env python3
"""Writes the index that turns Debian's (or Ubuntu's) packages into a Nix set.

    packages.json ──roots──► apt's solver ──► one consistent set of packages
                                                    │  edges: the first
                                                    │  alternative chosen
    index-amd64.json ◄── prune, find cycles ◄───────┘

The index says of each package where its .deb is, which SHA-256 it has and
which packages it depends on. Nothing but apt's lists is fetched here; Nix
fetches a .deb when an image first needs it, and checks the hash.

apt runs with folders of its own and an empty dpkg status, so the packages
installed on this machine neither matter nor change. Its sources, keys and
proxy settings are the machine's own: the mirror its owner chose is used.

    index.py --arch amd64 --out .nixgate/debian/index-amd64.json
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

# Bring their files into being at installation, or look after a machine that
# is installed: there is neither in an image. Some are in nearly every closure
# and would draw perl, PAM and dpkg into it.
DROPPED = re.compile(
    r"adduser|base-files|base-passwd|ca-certificates-java|cdebconf|debconf(-2\.0)?"
    r"|debianutils|default-logind|dpkg|init-system-helpers|install-info|libc-bin"
    r"|libpam-.*|lsb-base|man-db|passwd|sensible-utils|sysvinit-utils|ucf|usrmerge"
    r"|util-linux-extra|x11-common"
)
# A repository of another vendor may offer packages under Debian's names whose
# files lie elsewhere; packages.json knows only those of these two.
ORIGINS = ("Debian", "Ubuntu")
# Lists of this machine that are older name versions the archive may have
# dropped: Debian does so at every point release, Ubuntu at every update.
LISTS_FRESH_SECONDS = 3 * 24 * 3600
# What Nix's fetcher can fetch. apt knows more, such as mirror+http and tor.
FETCHABLE = ("http", "https", "file", "ftp")


class IndexFailure(Exception):
    """What went wrong and what to do about it, in words for the user."""


class Apt:
    """apt for one architecture, beside the machine's own state."""

    def __init__(self, arch, state, sources=None):
        self.arch = arch
        self.state = state
        self.config = state / "apt.conf"
        self.lists = state / "lists"
        self._has_host_lists = arch == host_architecture() and sources is None
        for folder in (self.lists / "partial", state / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        (state / "status").write_text("")
        (state / "preferences").write_text(preferences())
        self._sources = sources

    def prepare_lists(self):
        """Makes lists available: the machine's if fresh, else fetched ones."""
        host = Path("/var/lib/apt/lists")
        if self._has_host_lists and fresh(host):
            self._configure(host)
            if self.knows("libc6"):
                return
        self._configure(self.lists)
        # A repository that can't be reached fails the update as a whole, but
        # matters only if packages are then missing. That shows soon enough.
        update = self._run("apt-get", "update", "-qq")
        if not self.knows("libc6"):
            raise IndexFailure(
                f"apt found no packages for {self.arch}.\n{update.stderr.strip()}\n"
                f"Do this machine's sources (/etc/apt) serve {self.arch}? Ubuntu keeps its "
                "ports on another host than amd64: name sources that serve it with --sources FILE."
            )

    def knows(self, name):
        """Whether a package of that name is in the lists."""
        return name in self.show([name])

    def show(self, specifications):
        """Package name -> control fields, for "name" or "name=version"."""
        shown = self._run("apt-cache", "show", "--no-all-versions", *specifications)
        stanzas = parse_stanzas(shown.stdout)
        return {stanza["Package"]: stanza for stanza in stanzas}

    def solve(self, names):
        """What installing `names` on an empty machine needs: name -> (version, URL)."""
        solved = self._run("apt-get", "install", "--print-uris", "-y", "-qq", *names)
        if solved.returncode != 0:
            raise IndexFailure(
                f"apt can't satisfy the set's packages together:\n{solved.stdout}{solved.stderr}"
                "Is a repository missing from this machine's sources, or are its lists "
                "out of step? Try `apt-get update`."
            )
        return dict(map(parse_uri_line, solved.stdout.splitlines()))

    def _configure(self, lists):
        # `#clear` first: the machine's settings are already read when this is.
        # Its hooks act on its own state (they empty caches, refresh databases).
        self.config.write_text(
            f"""\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-hidpi;
#clear Acquire::IndexTargets::deb-src;
APT::Architecture "{self.arch}";
APT::Architectures {{ "{self.arch}"; }};
APT::Install-Recommends "false";
APT::Get::List-Cleanup "true";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
Acquire::GzipIndexes "true";
Dir::State "{self.state}";
Dir::State::status "{self.state}/status";
Dir::State::lists "{lists}";
Dir::Cache "{self.state}/cache";
Dir::Etc::preferences "{self.state}/preferences";
Dir::Etc::preferencesparts "/dev/null";
"""
            + (
                f'Dir::Etc::sourcelist "{self._sources.resolve()}";\n'
                'Dir::Etc::sourceparts "/dev/null";\n'
                if self._sources
                else ""
            )
        )

    def _run(self, program, *arguments):
        command = [program, "-c", str(self.config), *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            return subprocess.run(command, env=environment, capture_output=True, text=True)
        except FileNotFoundError:
            raise IndexFailure(
                f"{program} is not on this machine: the Debian set needs apt. Use a nixpkgs "
                "source instead, or make the index on a Debian or Ubuntu machine."
            ) from None


def host_architecture():
    """The architecture that dpkg was built for, such as "amd64"."""
    try:
        return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    except FileNotFoundError:
        return None


def fresh(lists):
    """Whether the machine ran `apt-get update` not long ago."""
    try:
        return time.time() - lists.stat().st_mtime < LISTS_FRESH_SECONDS
    except FileNotFoundError:
        return False


def preferences():
    """Pins that leave only the repositories of ORIGINS; apt heeds the first that fits."""
    pins = [(f"release o={origin}", 500) for origin in ORIGINS] + [('origin "*"', -1)]
    return "\n".join(f"Package: *\nPin: {pin}\nPin-Priority: {at}\n" for pin, at in pins)


def parse_stanzas(text):
    """Control stanzas as dictionaries; continuation lines are left out."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line[0].isspace()]
        if lines:
            yield dict(line.split(": ", 1) for line in lines if ": " in line)


def parse_uri_line(line):
    """A line of `apt-get --print-uris`: 'URL' NAME_VERSION_ARCH.deb SIZE HASH."""
    url, file = line.split(" ")[:2]
    name, version, _ = file.split("_")
    return name, (urllib.parse.unquote(version), url.strip("'"))


def relations(field):
    """ "a (>= 1) | b, c:any" -> [["a", "b"], ["c"]]."""
    bare = re.sub(r"\([^)]*\)|\[[^]]*\]|:[a-z0-9]+", "", field)
    groups = [[name.strip() for name in group.split("|")] for group in bare.split(",")]
    return [group for group in groups if group != [""]]


def chosen_dependencies(controls):
    """Name -> sorted names: each dependency's first alternative among `controls`.

    A virtual package stands for the package that provides it.
    """
    providers = {name: [name] for name in controls}
    for name in sorted(controls):
        for [virtual] in relations(controls[name].get("Provides", "")):
            providers.setdefault(virtual, []).append(name)

    def choose(group):
        if DROPPED.fullmatch(group[0]):
            return None
        return next((providers[name][0] for name in group if name in providers), None)

    chosen = {}
    for name, control in controls.items():
        fields = (control.get("Pre-Depends", ""), control.get("Depends", ""))
        groups = [group for field in fields for group in relations(field)]
        chosen[name] = sorted({choose(group) for group in groups} - {None, name})
    return chosen


def reachable(edges, roots):
    """Everything that `roots` lead to, themselves included."""
    seen, pending = set(), list(roots)
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(edges[name])
    return seen


def cycles(edges):
    """Groups of packages that depend on one another, each sorted.

    libc6 and libgcc-s1 are the best known. No derivation can depend on
    itself, so the packages of a group share one.
    """
    behind = {name: reachable(edges, edges[name]) for name in edges}
    groups = {
        tuple(sorted(other for other in behind[name] if name in behind[other]))
        for name in edges
        if name in behind[name]
    }
    return sorted(map(list, groups))


def build_index(apt, roots):
    """The index as a dictionary, and the roots that this archive doesn't have."""
    known = apt.show(roots)
    missing = [root for root in roots if root not in known]
    present = [root for root in roots if root in known]
    solution = apt.solve(present)
    controls = apt.show([f"{name}={version}" for name, (version, _) in solution.items()])
    edges = chosen_dependencies(controls)
    needed = sorted(reachable(edges, present))
    packages = {}
    for name in needed:
        version, url = solution[name]
        if urllib.parse.urlsplit(url).scheme not in FETCHABLE:
            raise IndexFailure(
                f"Nix can't fetch {url}.\nUse a source with one of the schemes "
                f"{', '.join(FETCHABLE)} in /etc/apt, or name other sources with --sources FILE."
            )
        packages[name] = {
            "version": version,
            "url": url,
            "sha256": controls[name]["SHA256"],
            "depends": edges[name],
        }
    kept = {name: edges[name] for name in needed}
    index = {"architecture": apt.arch, "packages": packages, "cycles": cycles(kept)}
    return index, missing


def write_atomically(path, text):
    """Readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--arch", required=True, help="Debian's name of it: amd64, arm64")
    parser.add_argument("--out", required=True, type=Path, help="the index to write")
    parser.add_argument("--sources", type=Path, help="apt sources to use instead of the machine's")
    arguments = parser.parse_args()

    attributes = json.loads((Path(__file__).parent / "packages.json").read_text())
    roots = sorted(set().union(*(a["debian"] + a.get("uses", []) for a in attributes.values())))
    # Kept beside the index: the next update then fetches only what changed.
    state = arguments.out.resolve().parent / f"apt-{arguments.arch}"
    try:
        apt = Apt(arguments.arch, state, arguments.sources)
        apt.prepare_lists()
        index, missing = build_index(apt, roots)
    except IndexFailure as error:
        sys.exit(f"index.py: {error}")
    if missing:
        print(f"index.py: not in this archive, left out: {' '.join(missing)}", file=sys.stderr)
    write_atomically(arguments.out, json.dumps(index, indent=1, sort_keys=True) + "\n")
    print(f"{arguments.out}: {len(index['packages'])} packages for {arguments.arch}")


if __name__ == "__main__":
    main()
