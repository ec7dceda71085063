#!/usr/bin/env python3
"""Kill a run at random moments, resume it, kill it again ..., until it ends; then begin another. Each must end with the weights,
moments and averages of a run that was never killed, and every resumption must go on at or after the newest complete save.

usage: kill_loop.py FOVEA [--kills N] [--seed S]
A quarter of the kills must hit while a file is being saved (it leaves a temporary file then). Ends with "N passed, M failed":
a kill passes if the run folder is whole after it and the next start goes on where it should."""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import run_files

RUN = "run/t"
FRESH = ["train", *run_files.SMALL, "--epochs", "6", "--save-steps", "1", "-j", "1", "--json", "-q", "--output", "run", "--name", "t"]
RESUME = ["train", "--resume", RUN, "--json", "-q"]


class Loop:
    def __init__(self, fovea, kills, seed):
        self.fovea, self.kills, self.random = os.path.abspath(fovea), kills, random.Random(seed)
        self.killed = self.amid_save = self.chains = 0
        self.failures = []
        self.step = None  # of the newest complete save; None: nothing has been saved

    def fail(self, text):
        self.failures.append(f"kill {self.killed}: {text}")

    def reference(self, cwd):
        started = time.monotonic()
        done = run_files.run([self.fovea, *FRESH], cwd)
        self.seconds, self.hash = time.monotonic() - started, done.hash
        shutil.rmtree(os.path.join(cwd, "run"), ignore_errors=True)
        if done.code or not done.hash:
            raise SystemExit(f"kill_loop.py: the run fails without being killed:\n{done.err}\n0 passed, 1 failed")

    def start(self, cwd, arguments):
        """Run for a random time; True if it ended by itself."""
        paths = [os.path.join(cwd, name) for name in ("out", "err")]
        with open(paths[0], "w") as out, open(paths[1], "w") as err:
            program = subprocess.Popen([self.fovea, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            try:
                program.wait(self.random.uniform(0, 0.5 * self.seconds))
                ended = True
            except subprocess.TimeoutExpired:
                program.send_signal(signal.SIGKILL)
                program.wait()
                ended = program.returncode != -signal.SIGKILL  # it may have ended in between
        texts = []
        for path in paths:
            with open(path, errors="replace") as f:
                texts.append(f.read())
        return ended, run_files.Result(program.returncode, *texts)

    def check_folder(self, run, before):
        """After a kill: what bears its final name is whole, and the saved step never goes back."""
        self.amid_save += bool(set(run_files.temporary_below(run)) - before)
        try:
            for path in run_files.safetensors_below(run):
                run_files.read_safetensors(path)
            step = run_files.state_step(run)
        except (ValueError, KeyError) as error:
            return self.fail(f"a damaged file: {error}")
        if self.step is not None and (step is None or step < self.step):
            return self.fail(f"the saved step went from {self.step} back to {step}")
        self.step = step
        return None

    def check_start(self, result, resumed, ended):
        """What a start said: where it went on, and how it ended."""
        if ended and result.code:
            return self.fail(f"exit code {result.code} from {'--resume' if resumed else 'a fresh run'}: {result.err.strip()[:500]}")
        begun = run_files.event(result.events, "run")
        if resumed and begun and begun.get("step", -1) < self.step:
            return self.fail(f"resumed at step {begun.get('step')}, but step {self.step} had been saved")
        if resumed and "warning" in result.err and self.last_was_there:
            return self.fail(f"a warning: {result.err.strip()[:300]}")
        if ended and result.hash != self.hash:
            return self.fail(f"the run ends with hash {result.hash}, not {self.hash}")
        return None

    def chain(self, cwd):
        """One run, from its first start to its end."""
        run = os.path.join(cwd, RUN)
        self.step = None
        while not self.failures:
            resumed = self.step is not None
            if not resumed:  # killed before anything was saved: nothing to resume
                shutil.rmtree(os.path.join(cwd, "run"), ignore_errors=True)
            before = set(run_files.temporary_below(run))
            self.last_was_there = os.path.exists(os.path.join(run, "state", "last.safetensors"))
            ended, result = self.start(cwd, RESUME if resumed else FRESH)
            self.check_start(result, resumed, ended)
            if ended:
                if run_files.temporary_below(run):
                    self.fail(f"temporary files are left at the end: {run_files.temporary_below(run)[:3]}")
                break
            self.killed += 1
            self.check_folder(run, before)
        self.chains += 1
        shutil.rmtree(os.path.join(cwd, "run"), ignore_errors=True)

    def all(self, cwd):
        self.reference(cwd)
        while not self.failures and (self.killed < self.kills or 4 * self.amid_save < self.kills) and self.killed < 4 * self.kills:
            self.chain(cwd)
        if not self.failures and 4 * self.amid_save < self.kills:
            self.fail(f"only {self.amid_save} kills hit a save")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fovea")
    parser.add_argument("--kills", type=int, default=int(os.environ.get("FOVEA_KILLS", "200")))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    temp = tempfile.mkdtemp(prefix="fovea-kills-")
    started = time.monotonic()
    try:
        loop = Loop(args.fovea, args.kills, args.seed)
        loop.all(temp)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    print(f"{loop.killed} kills, {loop.amid_save} of them during a save, over {loop.chains} runs, {time.monotonic() - started:.0f} s")
    for failure in loop.failures:
        print("FAILED:", failure)
    print(f"{loop.killed - len(loop.failures)} passed, {len(loop.failures)} failed")
    return 1 if loop.failures else 0


if __name__ == "__main__":
    sys.exit(main())
