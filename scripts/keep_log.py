#!/usr/bin/env python3
"""Keeps what comes from stdin in a file that has a bound.

    envoy ... | keep_log.py FILE

FILE is begun anew; what was there before becomes FILE.1. When it has 10 MiB, it does so again, and
of earlier files three are kept. So a log takes about 40 MiB, however much is written. The files are the
owner's, readable by the group. What the disk has no room for is lost, and FILE says how much.
"""

import os
import signal
import sys
from logging.handlers import RotatingFileHandler

BYTES = 10 << 20
EARLIER = 3
# So much is read at once, at most.
PIECE = 64 << 10


class Files:
    """Files of at most so many bytes each, or one piece if that is more.

    What can't be written, as when the disk is full, is dropped and counted; the next line says how much.
    To end instead would leave the writer with a broken pipe for the rest of its life.
    """

    def __init__(self, path, most):
        self.path = path
        self.most = most
        self.earlier = RotatingFileHandler(path, backupCount=EARLIER, delay=True)
        self.file = None
        self.left = b""
        self.lost = 0
        self.reason = None

    def write(self, piece):
        self.left = piece
        try:
            if self.file is None:
                self._begin()
            self._say_what_is_lost()
            at = self.file.tell()
            if at > 0 and at + len(piece) > self.most:
                # A line stays whole; one that is longer than a piece does not.
                self._put(piece.find(b"\n") + 1)
                self._begin()
            self._put(len(self.left))
        except OSError as error:
            self.lost += len(self.left)
            self.reason = error.strerror

    def close(self):
        self.write(b"")
        if self.file is not None:
            self.file.close()

    def _begin(self):
        if self.file is not None:
            self.file.close()
            self.file = None
        if os.path.exists(self.path) and os.path.getsize(self.path) > 0:
            self.earlier.doRollover()
        self.file = open(self.path, "ab", buffering=0)

    def _put(self, count):
        # A disk that is almost full takes a part.
        while count > 0:
            written = self.file.write(self.left[:count])
            self.left = self.left[written:]
            count -= written

    def _say_what_is_lost(self):
        if self.lost == 0:
            return
        said = b"\nkeep_log: %d bytes are lost here: %s\n" % (self.lost, self.reason.encode())
        if self.file.write(said) == len(said):
            self.lost = 0


def keep(log, path, most=BYTES):
    """Writes what is read to files, whatever becomes of them."""
    files = Files(path, most)
    while piece := log.read1(PIECE):
        files.write(piece)
    files.close()


if __name__ == "__main__":
    os.umask(0o027)
    # It ends with what it reads from, whose last words it is to keep.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(sys.stdin.buffer, sys.argv[1])
