"""Run a program on a terminal: python3 terminal.py COLUMNS[:LATER] COMMAND...   (LATER: the width once it shows a bar)

What it writes goes to standard output as it is; its exit code is ours. With CHECK=1 in the environment the last line says how wide the
widest line on the screen was, what is written over with a carriage return counted alone: "widest 79 overwritten 12"."""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios


def resize(fd, columns):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


def measure(text):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r\n", "\n")
    lines = re.split(r"[\r\n]", text)
    return max(map(len, lines)), text.count("\r")


def pending(fd, seconds):
    """What there is to read, waiting that long for its first byte; b"" if there is nothing, or the other end is closed."""
    out = b""
    while select.select([fd], [], [], 0 if out else seconds)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        out += data
    return out


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
    out, at = b"", None
    while True:
        if len(widths) > 1 and at is None and b"\r\x1b[K" in out:
            # It sleeps while the window changes: only one bar of the old width can still be under way, however slow we are.
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            out += pending(master, 0)
            resize(master, widths[1])
            at = len(out)
            os.kill(pid, signal.SIGCONT)
        data = pending(master, 0.1)
        if not data and select.select([master], [], [], 0)[0]:  # the other end is closed
            break
        out += data
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.buffer.write(out)
    if os.environ.get("CHECK"):
        if at is not None:
            out = out[at:].split(b"\r", 2)[-1]
        print("\nwidest %d overwritten %d" % measure(out.decode(errors="replace")))
    sys.stdout.flush()
    os._exit(code & 255)


main()
