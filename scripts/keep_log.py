#!/usr/bin/env python3
"""Writes stdin to a log file of limited size.

    envoy ... | keep_log.py FILE

At the start and whenever FILE has 10 MiB, it is rotated to FILE.1, and three earlier files are kept. So a
log takes about 40 MiB. The group can read the files. Output that does not fit on a full disk is lost, and
a line in FILE says how much.
"""

import os
import signal
import sys
from logging.handlers import RotatingFileHandler

BYTES = 10 << 20
EARLIER = 3
# The most that is read at once.
PIECE = 64 << 10


class Files:
    """Files of at most `most` bytes each, or one piece if that is more.

    Output that can't be written, for example to a full disk, is dropped and counted. To exit instead would
    leave Envoy with a broken pipe.
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
            self._report_loss()
            at = self.file.tell()
            if at > 0 and at + len(piece) > self.most:
                # Rotates at the end of a line, unless it is longer than a piece.
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
        # An almost full disk may take a part.
        while count > 0:
            written = self.file.write(self.left[:count])
            self.left = self.left[written:]
            count -= written

    def _report_loss(self):
        if self.lost == 0:
            return
        said = b"\nkeep_log: %d bytes are lost here: %s\n" % (self.lost, self.reason.encode())
        if self.file.write(said) == len(said):
            self.lost = 0


def keep(log, path, most=BYTES):
    """Copies a stream to the files."""
    files = Files(path, most)
    while piece := log.read1(PIECE):
        files.write(piece)
    files.close()


if __name__ == "__main__":
    os.umask(0o027)
    # It ends at the end of its input, so that it keeps Envoy's last lines.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(sys.stdin.buffer, sys.argv[1])
