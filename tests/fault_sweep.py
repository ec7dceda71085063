#!/usr/bin/env python3
"""Make the calls of a small run on its files fail, one after the other, and see that nothing is lost.

A run is interrupted, with its state saved. On a copy of it each open, write, fsync, close, rename and mkdir of the resumed
run fails in turn, with several errors, once and for ever. Then, with the fault gone, the run must go on from what was there
before and end with the weights, moments and averages of a run that was never disturbed; the failed call must have given an
exit code other than 0 and a message with the path and the system's words, unless it is one that a program must bear
(an interruption, a short write). The same for the first files of a fresh run.

usage: fault_sweep.py FOVEA SHIM [--all] [--jobs N]
--all: every error at every call. Else the errors take turns, and of calls that are made often an even selection fails.
Ends with "N passed, M failed"."""
import argparse
import collections
import concurrent.futures
import errno
import os
import shutil
import sys
import tempfile

import run_files

RUN = "run/t"
TRAIN = ["train", *run_files.SMALL, "--epochs", "2", "--save-steps", "4", "-j", "0", "--json", "-q"]
FRESH = [*TRAIN, "--output", "run", "--name", "t"]
RESUME = ["train", "--resume", RUN, "--json", "-q"]
STOP_AT = 6
ERRORS = {
    "open": ["ENOSPC:once", "EINTR:once", "EIO:ever", "EDQUOT:once", "EINTR:often", "ENOSPC:ever"],
    "write": ["ENOSPC:once", "SHORT:once", "EIO:ever", "EINTR:once", "EDQUOT:once", "SHORT:ever", "ENOSPC:ever", "EINTR:often"],
    "fsync": ["EIO:once", "ENOSPC:ever", "EDQUOT:once", "EIO:ever"],
    "close": ["EIO:once", "EINTR:once", "ENOSPC:ever", "EDQUOT:once", "EINTR:ever"],
    "rename": ["EIO:once", "ENOSPC:ever", "EDQUOT:once", "EIO:ever"],
    "mkdir": ["ENOSPC:once", "EDQUOT:ever"],
}
LEAST, MOST = 128, 24  # faults in all; calls of a kind without --all

Case = collections.namedtuple("Case", "number fresh call n error times path mode")


def rows(trace):
    """(call, path, mode, failed on purpose) of a trace's lines."""
    with open(trace) as f:
        fields = [line.rstrip("\n").split("\t") for line in f]
    return [(r[0], r[3], r[4], r[5] == "fault") for r in fields]


class Sweep:
    def __init__(self, fovea, shim, temp):
        self.fovea, self.shim, self.temp = os.path.abspath(fovea), os.path.abspath(shim), temp
        self.failures, self.passed = [], 0
        self.spread = collections.Counter()

    def run(self, arguments, cwd, fault=None):
        env = {"LD_PRELOAD": self.shim, "FV_TRACE": os.path.join(cwd, "trace"), "FV_FAULT": fault or ""}
        return run_files.run([self.fovea, *arguments], cwd, env)

    def prepare(self):
        """The undisturbed run, the interrupted one, and the calls that each kind of run makes."""
        whole, base = self.folder("whole"), self.folder("base")
        done = self.run(FRESH, whole)
        self.hash = done.hash
        stopped = self.run([*FRESH, "--max-steps", str(STOP_AT)], base)
        if done.code or not self.hash or stopped.code:
            raise SystemExit(f"fault_sweep.py: a run without faults fails:\n{done.err}{stopped.err}\n0 passed, 1 failed")
        os.unlink(os.path.join(base, "trace"))
        copy = self.copy_of_base("resumed")
        resumed = self.run(RESUME, copy)
        if resumed.code or resumed.hash != self.hash:
            raise SystemExit(f"fault_sweep.py: a resumed run without faults fails: {resumed.hash}, not {self.hash}\n"
                             f"{resumed.err}\n0 passed, 1 failed")
        return {True: rows(os.path.join(whole, "trace")), False: rows(os.path.join(copy, "trace"))}

    def folder(self, name):
        path = os.path.join(self.temp, name)
        os.mkdir(path)
        return path

    def copy_of_base(self, name):
        path = self.folder(name)
        shutil.copytree(os.path.join(self.temp, "base", "run"), os.path.join(path, "run"))
        return path

    def plan(self, calls, every):
        cases, turn = [], collections.Counter()
        for fresh, trace in calls.items():
            for call, errors in ERRORS.items():
                mine = [row for row in trace if row[0] == call and RUN in (row[2] if call == "rename" else row[1])]
                if fresh:
                    mine = mine[:4]  # up to the first saved files: the rest is as in a resumed run
                numbers = range(1, len(mine) + 1)
                if not every and len(mine) > MOST:
                    numbers = [1 + round(i * (len(mine) - 1) / (MOST - 1)) for i in range(MOST)]
                for n in numbers:
                    _, path, mode, _ = mine[n - 1]
                    chosen = errors if every else [errors[turn[call] % len(errors)]]
                    turn[call] += 1
                    for error in chosen:
                        cases.append(Case(len(cases), fresh, call, n, *error.split(":"), path, mode))
        return cases

    def judge(self, case, result, hit):
        """What is wrong with the way in which the disturbed run ended; None: nothing."""
        must_bear = case.error in ("EINTR", "SHORT") and case.call in ("open", "write", "close") and (
            case.times != "ever" or case.error == "SHORT" or case.call == "close")
        harmless = case.mode[:1] in ("r", "d") or case.path.endswith("/lock")  # nothing that was written can be lost
        may_bear = (harmless and case.call in ("close", "open")) or case.error == "EINTR"
        if result.code == 124:
            return "it hangs"
        if result.code == 0:
            if result.hash != self.hash:
                return f"exit code 0, but the hash is {result.hash}, not {self.hash}"
            return None if must_bear or may_bear or not hit else "exit code 0: the failure went unnoticed"
        if must_bear:
            return f"exit code {result.code}: a program must bear this"
        if not hit:
            return f"exit code {result.code} without a fault"
        if result.code not in (4, 5) or (result.code == 4 and case.mode != "r"):
            return f"exit code {result.code}, not 5"
        words = os.strerror(getattr(errno, case.error)) if case.error != "SHORT" else ""
        if words not in result.err:
            return f"the message does not say '{words}'"
        return None if "run" in result.err.partition("error: ")[2] else "the message names no path"

    def one(self, case):
        cwd = self.folder(f"c{case.number}") if case.fresh else self.copy_of_base(f"c{case.number}")
        first = self.run(FRESH if case.fresh else RESUME, cwd, f"{case.call}:{case.error}:{case.n}:{case.times}:{RUN}")
        hit = next((row for row in rows(os.path.join(cwd, "trace")) if row[3]), None)
        if hit:  # two threads write: the N-th call need not be the one that the undisturbed run made
            case = case._replace(path=hit[1], mode=hit[2])
        text = f"{'fresh' if case.fresh else 'resumed'} run, {case.call} {case.n} {case.error} {case.times} ({case.path})"
        wrong, shown = self.judge(case, first, hit), first
        left = run_files.temporary_below(os.path.join(cwd, "run"))
        if not wrong and left and case.call != "unlink":
            wrong = f"left behind: {', '.join(os.path.basename(p) for p in left)}"
        if not wrong and first.code:
            wrong, shown = self.afterwards(case, cwd)
        for path in run_files.safetensors_below(os.path.join(cwd, "run")):
            bad = run_files.non_finite(path)
            wrong = wrong or (bad and f"{path}: {bad[0]} is not finite")
        shutil.rmtree(cwd)
        return case, hit, wrong and f"{text}: {wrong}\n      {shown.err.strip()[:600]}"

    def afterwards(self, case, cwd):
        """With the fault gone the run goes on, to the same end."""
        again = self.run(RESUME, cwd)
        if case.fresh and again.code in (4, 5) and not os.path.exists(os.path.join(cwd, RUN, "state", "last.safetensors")):
            return None, again  # nothing had been saved, and resume says so
        if again.code:
            return f"resume without the fault: exit code {again.code}", again
        return (None if again.hash == self.hash else f"resumed: the hash is {again.hash}, not {self.hash}"), again

    def all(self, every, jobs):
        cases = self.plan(self.prepare(), every)
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for case, hit, wrong in pool.map(self.one, cases):
                if wrong:
                    self.failures.append(wrong)
                else:
                    self.passed += 1
                if hit:
                    self.spread[case.call] += 1
        faults = sum(self.spread.values())
        print(f"{faults} faults: " + ", ".join(f"{n} {call}" for call, n in sorted(self.spread.items())))
        if faults < LEAST:
            self.failures.append(f"only {faults} faults were met, not {LEAST}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fovea")
    parser.add_argument("shim")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    temp = tempfile.mkdtemp(prefix="fovea-faults-")
    try:
        sweep = Sweep(args.fovea, args.shim, temp)
        sweep.all(args.all, args.jobs)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    for failure in sweep.failures[:20]:
        print("FAILED:", failure)
    print(f"{sweep.passed} passed, {len(sweep.failures)} failed")
    return 1 if sweep.failures else 0


if __name__ == "__main__":
    sys.exit(main())
