#!/usr/bin/env python3
"""Make the program's allocations fail, one after the other: it must say so and end, or do without and give the same result.

Each command runs once undisturbed, which tells how many allocations it makes and what it prints. Then the first, the
second ... of them fails (an even selection of many). The program must neither crash nor hang; it ends with exit code 6
and a message, or, where the library that could not get its memory reports it as something else (a file that cannot be
opened, a text that cannot be parsed), with another code and a message; or it succeeds and prints what it printed before.

usage: memory_sweep.py FOVEA SHIM [--all] [--most N]
Ends with "N passed, M failed"."""
import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile

LENET = ["--model", "lenet5", "--img-size", "16", "--threads", "1", "-j", "0"]
SYNTHETIC = ["--data", "synthetic", "--fraction", "0.02", "-b", "16", *LENET]
LIST = ["--data", "set/list.csv", "-b", "8", *LENET]
RUN = "runs/done"

# name, arguments, whether what is printed is the same each time
COMMANDS = [
    ("train", ["train", *SYNTHETIC, "--epochs", "1", "--model-ema", "--name", "t", "-q"], False),
    ("train on a list", ["train", *LIST, "--epochs", "1", "--name", "t", "--json", "--cache", "ram"], False),
    ("resume", ["train", "--resume", "copy", "-q"], False),
    ("dry run", ["train", *SYNTHETIC, "-c", "recipe.yaml", "--dry-run", "--json"], False),
    ("eval", ["eval", RUN, "--split", "val", "-q"], True),
    ("predict", ["predict", RUN, "set/pictures", "--threads", "1"], True),
    ("predict, JSON", ["predict", RUN, "set/pictures", "--threads", "1", "--json"], True),
    ("info", ["info", "resnet20", "-b", "2", "--json"], True),
    ("info on a run", ["info", RUN], True),
    ("models", ["models"], True),
    ("data info", ["data", "info", "set/list.csv"], True),
    ("data check", ["data", "check", "set/list.csv"], True),
    ("data info, synthetic", ["data", "info", "synthetic"], True),
    ("bench", ["bench", "--model", "lenet5", "-b", "2", "--seconds", "0.01", "--threads", "1", "--profile"], False),
    ("help", ["help", "train"], True),
    ("man page", ["help", "--man"], True),
    ("completion", ["completion", "zsh"], True),
    ("an unknown option", ["train", "--epocs", "3"], True),
]
Result = collections.namedtuple("Result", "code out err")


def steady(text):
    """Without what differs from run to run."""
    return re.sub(r"[0-9.]+ img/s|\"images_per_s\": [0-9.]+", "", text)


class Sweep:
    def __init__(self, fovea, shim, temp, most):
        self.fovea, self.shim, self.temp, self.most = os.path.abspath(fovea), os.path.abspath(shim), temp, most
        self.passed, self.failures, self.codes = 0, [], collections.Counter()

    def run(self, arguments, number=None):
        """One call; with `number`, its allocation of that number fails (0: none, but they are counted)."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("FOVEA_", "FV_"))}
        env.update(TERM="dumb", NO_COLOR="1")
        if number is not None:
            env.update(LD_PRELOAD=self.shim, FV_MEMORY=f"{number}:{os.path.join(self.temp, 'count')}")
        shutil.rmtree(os.path.join(self.temp, "runs/t"), ignore_errors=True)
        if arguments[:2] == ["train", "--resume"]:
            shutil.rmtree(os.path.join(self.temp, "copy"), ignore_errors=True)
            shutil.copytree(os.path.join(self.temp, "cut"), os.path.join(self.temp, "copy"))
        try:
            done = subprocess.run([self.fovea, *arguments], cwd=self.temp, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=120, check=False)
            return Result(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))
        except subprocess.TimeoutExpired:
            return Result("no end", "", "")

    def prepare(self):
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make_pictures.py")
        subprocess.run([sys.executable, maker, os.path.join(self.temp, "set"), "32", "one"], check=True)
        with open(os.path.join(self.temp, "recipe.yaml"), "w", encoding="utf-8") as f:
            f.write("lr: 0.05\nepochs: 3\nmean: [0.5, 0.5, 0.5]\nstd: [0.5, 0.5, 0.5]\n")
        for arguments in (["train", *LIST, "--epochs", "1", "--name", "done", "-q"],
                          ["train", *SYNTHETIC, "--epochs", "2", "--save-steps", "2", "--max-steps", "4", "--name", "cut", "-q"]):
            got = self.run(arguments)
            if got.code != 0:
                sys.exit(f"memory_sweep: {' '.join(arguments)}: exit code {got.code}\n{got.err}")
        shutil.copytree(os.path.join(self.temp, "runs/cut"), os.path.join(self.temp, "cut"))

    def judge(self, expected, same, got):
        """What is wrong with the outcome; None: nothing."""
        if not isinstance(got.code, int) or got.code < 0:
            return f"ended by {'signal ' + str(-got.code) if isinstance(got.code, int) else 'nothing within two minutes'}"
        if got.code == expected.code:
            return "success, but it prints something else" if same and steady(got.out) != steady(expected.out) else None
        if got.code > 10:
            return f"exit code {got.code}"
        if not re.search(r"^fovea\b.*: (error|usage)", got.err, re.M) and not got.err.startswith("fovea"):
            return f"exit code {got.code} without a message"
        # jansson does not tell its lack of memory from bad JSON
        if got.code != 6 and not re.search("memory|not valid JSON", got.err):
            return f"exit code {got.code}, and no word of memory"
        return None

    def sweep(self, name, arguments, same):
        expected = self.run(arguments, 0)
        with open(os.path.join(self.temp, "count"), encoding="utf-8") as f:
            count = int(f.read())
        step = max(1, -(-count // self.most))
        for number in range(1, count + 1, step):
            got = self.run(arguments, number)
            self.codes[got.code] += 1
            wrong = self.judge(expected, same, got)
            if wrong is None:
                self.passed += 1
            else:
                self.failures.append(f"{name}, allocation {number} of {count}: {wrong}: {got.err.strip()[:300]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fovea")
    parser.add_argument("shim")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--most", type=int, default=40, help="allocations that fail, per command")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fovea-memory-") as temp:
        sweep = Sweep(args.fovea, args.shim, temp, 1 << 30 if args.all else args.most)
        sweep.prepare()
        for name, arguments, same in COMMANDS:
            if args.only in name:
                sweep.sweep(name, arguments, same)
    for line in sweep.failures[:40]:
        print("FAILED: " + line)
    print("exit codes: " + ", ".join(f"{code}: {n}" for code, n in sorted(sweep.codes.items(), key=str)))
    print(f"{sweep.passed} passed, {len(sweep.failures)} failed")
    sys.exit(1 if sweep.failures else 0)


main()
