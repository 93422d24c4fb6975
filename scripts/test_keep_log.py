"""python3 -m unittest scripts/test_keep_log.py"""

import io
import os
import re
import resource
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import keep_log


class Lines:
    """A pipe that gives a line at a time."""

    def __init__(self, lines):
        self.lines = iter(lines)

    def read1(self, _):
        return next(self.lines, b"")


class KeepLog(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name, "log")

    def files(self):
        return sorted(self.log.parent.iterdir())

    def test_a_log_has_a_bound_and_its_latest_lines(self):
        lines = [b"%05d %s\n" % (number, b"x" * 90) for number in range(1000)]
        keep_log.keep(Lines(lines), self.log, most=10_000)
        files = self.files()
        self.assertEqual(len(files), 1 + keep_log.EARLIER)
        self.assertTrue(self.log.read_bytes().endswith(lines[-1]))
        for file in files:
            self.assertTrue(file.read_bytes().endswith(b"\n"))
            self.assertLessEqual(file.stat().st_size, 10_000 + len(lines[0]))

    def test_each_run_begins_a_file_and_keeps_the_last_one(self):
        for text in (b"first\n", b"second\n"):
            keep_log.keep(io.BytesIO(text), self.log)
        self.assertEqual(self.log.read_bytes(), b"second\n")
        self.assertEqual(self.log.with_name("log.1").read_bytes(), b"first\n")

    def test_nothing_is_lost_whatever_is_written(self):
        text = b"a\xff\0\n" + b"y" * (2 * keep_log.PIECE) + b"\nlast"
        keep_log.keep(io.BytesIO(text), self.log)
        self.assertEqual(self.log.read_bytes(), text)

    def test_a_disk_that_is_full_for_a_while_loses_lines_and_the_log_says_how_many(self):
        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))

        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        self.addCleanup(limit, most)
        lines = [b"%05d %s\n" % (number, b"x" * 93) for number in range(30)]

        def pipe():
            for number, line in enumerate(lines):
                # As a full disk: of the line at the border a part is written.
                if number == 5:
                    limit(1050)
                if number == 20:
                    limit(most)
                yield line

        keep_log.keep(Lines(pipe()), self.log)
        text = self.log.read_bytes()
        before, lost, after = re.split(rb"\nkeep_log: (\d+) bytes are lost here: File too large\n", text)
        self.assertEqual(before, b"".join(lines)[:1050])
        self.assertEqual(after, b"".join(lines[20:]))
        self.assertEqual(len(before) + int(lost) + len(after), sum(map(len, lines)))

    def test_a_folder_that_is_not_there_for_a_while_ends_nothing(self):
        folder = self.log.parent / "later"

        def pipe():
            yield b"first\n"
            folder.mkdir()
            yield b"second\n"

        keep_log.keep(Lines(pipe()), folder / "log")
        said = b"\nkeep_log: 6 bytes are lost here: No such file or directory\nsecond\n"
        self.assertEqual((folder / "log").read_bytes(), said)

    def test_others_can_not_read_it(self):
        script = Path(keep_log.__file__)
        subprocess.run([sys.executable, script, self.log], input=b"x\n", check=True, umask=0)
        self.assertEqual(self.log.stat().st_mode & 0o7777, 0o640)


if __name__ == "__main__":
    unittest.main()
