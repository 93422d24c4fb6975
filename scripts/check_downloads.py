#!/usr/bin/env python3
"""Finds downloads without verification in scripts, Makefiles and container files.

    pip      by hashes (--require-hashes)
    cargo    by Cargo.lock, which has the hash of each crate (--locked)
    apt      by the archive's signature, unless it is told not to
    rustup   by itself
    images   by digest
    others   (curl, wget, git clone ...) not allowed, except from loopback
"""

import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["*.sh", "Makefile", "*.mk", "[Dd]ockerfile*", "[Cc]ontainerfile*"]
# Built or installed files.
SKIPPED = {"target", ".git", ".nixgate"}

VARIABLES = r"""(?:[A-Z0-9_]+=(?:"[^"]*"|'[^']*'|\$\([^)]*\)|\S*)\s+)*"""
BEGIN = (
    r"(?:^|[;&|({@!]|\b(?:then|do|else|exec|sudo|as_root|env|if|while|until)\b)\s*(?:\S*/)?"
    + VARIABLES
)
# A pattern of downloads, and the pattern that verifies them in the same command, if any.
RULES = [
    (r"""\bpip[0-9.]*"?\s+(?:install|download|wheel)\b""", r"--require-hashes\b"),
    (
        BEGIN + r"cargo\s+(?:\+\S+\s+)?(?:build|install|run|test|check|clippy|doc|tree|bench|fetch|update)\b",
        r"--(?:locked|frozen)\b",
    ),
    (r"\bcargo-deny\b.*\bcheck\b", r"--(?:locked|frozen)\b"),
    (r"--allow-unauthenticated|--allow-insecure|--force-yes|trusted=yes|--no-check-certificate", None),
    (
        BEGIN + r"(?:curl|wget|aria2c|git\s+clone|npm\s+(?:i|install)|npx|go\s+(?:install|get))\b",
        r"127\.0\.0\.1|localhost|--unix-socket\b",
    ),
    (r"^\s*ADD\s+.*https?://", r"--checksum=sha256:"),
    (r"^\s*FROM\s+(?!scratch\b)\S+", r"@sha256:[0-9a-f]{64}"),
]
RULES = [(re.compile(fetches), verified and re.compile(verified)) for fetches, verified in RULES]


def commands(text):
    """The commands of a script, without comments, those on several lines as one."""
    text = re.sub(r"\\\n", " ", text)
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#\s.*", "", line)
        if line.strip():
            yield line


def unverified(text):
    """The commands that download without verification."""
    return [
        line
        for line in commands(text)
        for fetches, verified in RULES
        if fetches.search(line) and not (verified and verified.search(line))
    ]


def scripts():
    """The files to check."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED]
        for name in files:
            if any(fnmatch(name, one) for one in NAMES) or Path(folder).name == ".ci":
                yield Path(folder, name)


def main():
    found = [(path, line) for path in sorted(scripts()) for line in unverified(path.read_text())]
    for path, line in found:
        print(f"nixgate: {path.relative_to(ROOT)} downloads without verification: {line.strip()}", file=sys.stderr)
    if found:
        sys.exit("   what to do: use --require-hashes with pip, --locked with cargo, a digest for images; remove other downloads")


if __name__ == "__main__":
    main()
