"""Run a program on a terminal: python3 terminal.py COLUMNS[:LATER] COMMAND...   (LATER: the width after half a second)

What it writes goes to standard output as it is; its exit code is ours. With CHECK=1 in the environment the last line says how wide the
widest line on the screen was, what is written over with a carriage return counted alone: "widest 79 overwritten 12"."""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time


def resize(fd, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def measure(text):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    lines = re.split(r"[\r\n]", text)
    return max(map(len, lines)), text.count("\r")


def main():
    widths = [int(w) for w in sys.argv[1].split(":")]
    master, slave = pty.openpty()
    resize(slave, widths[0])
    pid = os.fork()
    if pid == 0:
        os.close(master)
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(slave, fd)
        os.execvp(sys.argv[2], sys.argv[2:])
    os.close(slave)
    began, out, at = time.monotonic(), b"", None
    while True:
        if len(widths) > 1 and at is None and time.monotonic() - began > 0.5:
            resize(master, widths[1])
            at = len(out)
        if not select.select([master], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        out += data
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.buffer.write(out)
    if os.environ.get("CHECK"):
        if at is not None:  # one bar of the old width may still have been under way
            out = out[at:].split(b"\r", 2)[-1]
        print("\nwidest %d overwritten %d" % measure(out.decode(errors="replace")))
    sys.stdout.flush()
    os._exit(code & 255)


main()
