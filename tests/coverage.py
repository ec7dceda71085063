#!/usr/bin/env python3
"""Table of line and branch coverage per folder from gcovr's JSON, with limits; or what no test reached in given files.

usage: coverage.py coverage.json [--least FOLDER=PERCENT]... [FILE]...
"""
import argparse
import json
import os
import sys


class Count:
    def __init__(self):
        self.files = self.lines = self.lines_hit = self.branches = self.branches_hit = 0

    def add(self, lines):
        self.files += 1
        for line in lines:
            self.lines += 1
            self.lines_hit += line["count"] > 0
            self.branches += len(line["branches"])
            self.branches_hit += sum(b["count"] > 0 for b in line["branches"])


def share(part, whole):
    return 100 * part / whole if whole else 100.0


def counted(file):
    return [line for line in file["lines"] if not line.get("gcovr/noncode")]


def table(files, limits):
    """Prints the table; the list of folders below their limits."""
    counts, worst, below = {}, [], []
    for name, file in sorted(files.items()):
        one = Count()
        one.add(counted(file))
        worst.append((one.branches - one.branches_hit, name, one))
        for key in (os.path.dirname(name), "all"):
            counts.setdefault(key, Count()).add(counted(file))
    print(f"{'folder':<20}{'files':>6}{'lines':>8}{'%':>7}{'branches':>10}{'%':>7}  at least")
    for key in sorted(counts, key=lambda k: (k == "all", k)):
        c = counts[key]
        percent = share(c.branches_hit, c.branches)
        limit = limits.get(key)
        print(f"{key:<20}{c.files:>6}{c.lines:>8}{share(c.lines_hit, c.lines):>7.1f}{c.branches:>10}{percent:>7.1f}"
              + (f"{limit:>10.0f}" if limit is not None else ""))
        if limit is not None and percent < limit:
            below.append(f"{key}: {percent:.2f}% of its branches are reached by tests, {limit:g}% are asked for")
    print("most branches not reached:")
    for missed, name, c in sorted(worst, key=lambda w: (-w[0], w[1]))[:8]:
        print(f"  {name}: {missed} of {c.branches}")
    return below + [f"{key}: there is no such folder" for key in limits if key not in counts]


def missed(name, file):
    with open(name, encoding="utf-8") as source:
        text = source.read().split("\n")
    for line in counted(file):
        hit = [b["count"] > 0 for b in line["branches"]]
        if line["count"] == 0 or not all(hit):
            number = line["line_number"]
            which = "".join("+" if h else "-" for h in hit) if line["count"] else "never"
            print(f"{name}:{number}: {which:<8} {text[number - 1].strip()}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("json")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--least", action="append", default=[], metavar="FOLDER=PERCENT")
    args = parser.parse_args()
    with open(args.json, encoding="utf-8") as f:
        files = {file["file"]: file for file in json.load(f)["files"]}
    if args.files:
        for name in args.files:
            if name not in files:
                sys.exit(f"coverage: {name}: not counted")
            missed(name, files[name])
        return
    limits = {key: float(value) for key, value in (item.split("=") for item in args.least)}
    below = table(files, limits)
    for line in below:
        print("coverage: " + line, file=sys.stderr)
    sys.exit(1 if below else 0)


main()
