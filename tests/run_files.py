"""What the reliability tests share: calling the program, and reading what it leaves behind. Standard library only."""
import array
import json
import math
import os
import struct
import subprocess

# A run of two seconds or less in which everything that has state takes part: dropout, averages, accumulation,
# augmentation (the default for colour pictures), momentum, warm-up and a schedule.
SMALL = ["--data", "synthetic", "--model", "lenet5", "--img-size", "16", "--fraction", "0.1", "-b", "16", "--grad-accum-steps", "2",
         "--model-ema", "--drop", "0.2", "--lr", "0.02", "--hflip", "0.5", "--crop-pad", "2", "--threads", "1"]


def read_safetensors(path):
    """(metadata, {name: (dtype, shape, bytes)}); ValueError says what is wrong with the file."""
    with open(path, "rb") as f:
        data = f.read()
    if len(data) < 8:
        raise ValueError(f"{path}: {len(data)} bytes")
    length = struct.unpack("<Q", data[:8])[0]
    if length > len(data) - 8:
        raise ValueError(f"{path}: the header ends behind the file")
    try:
        header = json.loads(data[8:8 + length])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    meta, body, end, tensors = header.pop("__metadata__", {}), data[8 + length:], 0, {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[name] = entry["dtype"], entry["shape"], body[first:last]
        end = max(end, last)
    if end != len(body):
        raise ValueError(f"{path}: {len(body)} bytes of data, not {end}")
    return meta, tensors


def non_finite(path):
    """Names of the tensors of a file that hold a value which is not finite."""
    found = []
    for name, (dtype, _, data) in read_safetensors(path)[1].items():
        if dtype in ("F32", "F64") and not all(map(math.isfinite, array.array("f" if dtype == "F32" else "d", data))):
            found.append(name)
    return found


def safetensors_below(folder):
    """All model and state files of a run, finished ones only."""
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names
                  if name.endswith(".safetensors"))


def temporary_below(folder):
    return sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names if ".tmp-" in name)


def state_step(run):
    """The step of the newest complete state of a run; None without one. `prev` counts only where `last` is not there:
    a process that dies between the two renames leaves it so."""
    for which in "last", "prev":
        path = os.path.join(run, "state", which + ".safetensors")
        if os.path.exists(path):
            return int(read_safetensors(path)[0]["step"])
    return None


def events(text):
    """The JSON lines of standard output. A killed process may leave half a line at the end."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


def event(found, name):
    """The last event of that name, {} without one."""
    return next((e for e in reversed(found) if e.get("event") == name), {})


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.events = events(out)
        self.hash = event(self.events, "done").get("hash")


def run(command, cwd, env=None, timeout=120):
    """Run to the end. Code 124: it took longer than `timeout` seconds."""
    try:
        done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, timeout=timeout,
                              capture_output=True, text=True, errors="replace")
    except subprocess.TimeoutExpired as late:
        return Result(124, (late.stdout or b"").decode(errors="replace"), (late.stderr or b"").decode(errors="replace"))
    return Result(done.returncode, done.stdout, done.stderr)
