#!/usr/bin/env python3
"""Keeps what comes from stdin in a file that has a bound.

    envoy ... | keep_log.py FILE

FILE is begun anew; what was there before becomes FILE.1. When it has 10 MiB, it does so again, and
of earlier files three are kept. So a log takes about 40 MiB, however much is written. The files are the
owner's, readable by the group.
"""

import os
import signal
import sys
from logging.handlers import RotatingFileHandler

BYTES = 10 << 20
EARLIER = 3
# So much is read at once, at most.
PIECE = 64 << 10


def keep(log, path, most=BYTES):
    """Writes what is read to files of at most so many bytes, or one piece if that is more."""
    files = RotatingFileHandler(path, backupCount=EARLIER, delay=True)
    if os.path.exists(path) and os.path.getsize(path) > 0:
        files.doRollover()
    file = open(path, "ab", buffering=0)
    while piece := log.read1(PIECE):
        if file.tell() > 0 and file.tell() + len(piece) > most:
            # A line stays whole; one that is longer than a piece does not.
            end = piece.find(b"\n") + 1
            file.write(piece[:end])
            file.close()
            files.doRollover()
            file = open(path, "ab", buffering=0)
            piece = piece[end:]
        file.write(piece)
    file.close()


if __name__ == "__main__":
    os.umask(0o027)
    # It ends with what it reads from, whose last words it is to keep.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep(sys.stdin.buffer, sys.argv[1])
