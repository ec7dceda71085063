#!/usr/bin/env python3
"""Is what was saved safe against power loss? Reads a trace of tests/faults/preload.c and checks, for all files below FOLDER:

  - a file is made under a temporary name (O_EXCL), written, synced after its last write, closed, and then renamed;
  - after a rename the folder is synced, before the next file is made in that folder and before the program ends;
  - after a folder is made the folder above it is synced, before anything in it counts as saved;
  - no temporary file is left, and every file of FOLDER has come about in this way, but for those named in --free;
  - each of --wanted has been saved at least once.

usage: trace_order.py TRACE FOLDER [--wanted NAME,...] [--free NAME,...] [--earlier]
--earlier: FOLDER holds files from before the trace. Prints a line per breach; exit code 1 if there is one."""
import argparse
import os
import sys


def above(path):
    return os.path.dirname(path) or "."


class Order:
    def __init__(self, folder, free):
        self.folder, self.free = os.path.normpath(folder), set(free)
        self.dirty = {}          # temporary file -> "written" | "synced" | "closed"
        self.unsynced = {}       # folder -> what was renamed or made in it since its last sync
        self.saved, self.breaches, self.line = set(), [], 0

    def breach(self, text):
        self.breaches.append(f"line {self.line}: {text}")

    def inside(self, path):
        return path == self.folder or path.startswith(self.folder + os.sep)

    def on_open(self, path, mode):
        if "w" not in mode or os.path.basename(path) in self.free:
            return
        if ".tmp-" not in path or "x" not in mode:
            self.breach(f"{path} is written in place, or under a temporary name without O_EXCL")
        waiting = self.unsynced.get(above(path))
        if waiting:
            self.breach(f"{path} is begun before its folder was synced for {', '.join(waiting)}")
        self.dirty[path] = "written"

    def on_rename(self, path, target):
        state = self.dirty.pop(path, "closed")  # not written in this trace: it was there before
        if state == "written":
            self.breach(f"{path} is renamed without a sync after its last write")
        elif state == "synced":
            self.breach(f"{path} is renamed before it was closed")
        if above(path) != above(target):
            self.breach(f"{path} is renamed into another folder: {target}")
        self.unsynced.setdefault(above(target), []).append(target)
        self.saved.add(os.path.relpath(target, self.folder))

    def on_folder_sync(self, path):
        self.unsynced.pop(path, None)
        waiting = [made for made in self.unsynced.get(above(path), []) if made == path]
        if waiting:
            self.breach(f"{path} holds saved files, but the folder above was not synced since it was made")

    def take(self, call, result, path, detail):
        path = os.path.normpath(path) if path else ""
        if int(result) < 0:
            return
        if call == "mkdir" and (self.inside(path) or self.inside(os.path.join(path, os.path.basename(self.folder)))):
            self.unsynced.setdefault(above(path), []).append(path)
        elif call == "fsync" and detail.startswith("d"):
            self.on_folder_sync(path)
        elif not self.inside(path):
            return
        elif call == "open":
            self.on_open(path, detail)
        elif call == "write" and path in self.dirty:
            self.dirty[path] = "written"
        elif call == "fsync" and path in self.dirty:
            self.dirty[path] = "synced"
        elif call == "close" and self.dirty.get(path) == "synced":
            self.dirty[path] = "closed"
        elif call == "rename":
            self.on_rename(path, os.path.normpath(detail))
        elif call == "unlink":
            self.dirty.pop(path, None)

    def end(self, wanted, earlier):
        for folder, waiting in self.unsynced.items():
            self.breach(f"the program ends without a sync of {folder or '.'} after {', '.join(waiting)}")
        for path in self.dirty:
            self.breach(f"{path} is left behind")
        for where, _, found in os.walk(self.folder):
            for name in found:
                path = os.path.relpath(os.path.join(where, name), self.folder)
                if not earlier and name not in self.free and path not in self.saved:
                    self.breach(f"{path} was not saved by write, sync and rename")
        for name in wanted:
            if name not in self.saved:
                self.breach(f"{name} was never saved")


def names(text):
    return [name for name in text.split(",") if name]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("folder")
    parser.add_argument("--wanted", type=names, default=[])
    parser.add_argument("--free", type=names, default=["log.txt", "lock"])
    parser.add_argument("--earlier", action="store_true")
    args = parser.parse_args()
    order, renames = Order(args.folder, args.free), 0
    with open(args.trace) as f:
        for line in f:
            call, result, _, path, detail, _ = line.rstrip("\n").split("\t")
            order.line += 1
            renames += call == "rename"
            order.take(call, result, path, detail)
    order.end(args.wanted, args.earlier)
    for text in order.breaches[:10]:
        print(text)
    print(f"{order.line} calls, {renames} renames, {len(order.breaches)} breaches")
    return 1 if order.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
