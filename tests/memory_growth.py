#!/usr/bin/env python3
"""Does a long run need more and more? Trains a tiny model for 10,000 steps, saving all the while, and compares resident memory
and open descriptors at step 1,000 with those at step 10,000.

usage: memory_growth.py FOVEA      Ends with "N passed, M failed"."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

EARLY, LATE, MOST_GROWTH = 1000, 10000, 0.01
TRAIN = ["train", "--data", "synthetic", "--model", "mlp_500", "--img-size", "8", "--fraction", "0.5", "-b", "4", "--epochs", "100", "--lr", "0.001",
         "--threads", "1", "-j", "2", "--save-steps", "500", "--log-every", "100", "--max-steps", str(LATE + 400), "--name", "t"]


def resident(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    """What is open at this moment."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass  # closed in between
    return sorted(found)


def main():
    temp = tempfile.mkdtemp(prefix="fovea-memory-")
    samples, passed, failures = {}, 0, []
    fovea = os.path.abspath(sys.argv[1])
    try:
        program = subprocess.Popen([fovea, *TRAIN], cwd=temp, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        for line in program.stderr:
            step = re.match(r" *step (\d+) ", line)
            if not step or int(step[1]) not in (EARLY, EARLY + 100, LATE, LATE + 100):
                continue
            early = int(step[1]) < LATE
            for _ in range(10):
                samples.setdefault(early, []).append((resident(program.pid), descriptors(program.pid)))
                time.sleep(0.002)
        code = program.wait()
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    if code or len(samples) < 2:
        print(f"FAILED: the run ends with code {code}")
        print("0 passed, 1 failed")
        return 1
    before, after = (max(memory for memory, _ in samples[early]) for early in (True, False))
    print(f"resident memory {before / 1e6:.2f} MB at step {EARLY}, {after / 1e6:.2f} MB at step {LATE}")
    if after > before * (1 + MOST_GROWTH):
        failures.append(f"resident memory grows by {100 * (after / before - 1):.1f} %")
    # The fewest of some samples: a file may be open just then because it is being saved.
    files = [min((open_files for _, open_files in samples[early]), key=len) for early in (True, False)]
    if len(files[1]) > len(files[0]):
        failures.append(f"descriptors: {len(files[0])}, then {len(files[1])}: {files[1][:20]}")
    passed = 2 - len(failures)
    for failure in failures:
        print("FAILED:", failure)
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
