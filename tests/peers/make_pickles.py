#!/usr/bin/env python3
"""Write tests/vectors/pickles/: CIFAR batches as Python pickles them, for the restricted reader (data/pickle.c). Needs NumPy.

Record i holds label (7 i) % 10; byte j of its picture is (31 i + j + j // 256) % 251. test_data.c computes the same."""
import os
import pickle
import struct

import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors", "pickles")
N = 2


class Hostile:
    def __reduce__(self):
        return os.system, ("true",)


def batch(n=N):
    i, j = np.arange(n)[:, None], np.arange(3072)[None, :]
    data = ((31 * i + j + j // 256) % 251).astype(np.uint8)
    return {"batch_label": "testing batch 1 of 1", "labels": [7 * k % 10 for k in range(n)], "data": data,
            "filenames": ["picture_%d.png" % k for k in range(n)]}


def write(name, value, protocol):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(pickle.dumps(value, protocol=protocol))


def python2_batch():
    """What cPickle of Python 2 wrote with NumPy 1: the form of the published archives."""
    def text(s):
        return b"U" + bytes([len(s)]) + s

    def put(k):
        return b"q" + bytes([k])

    value = batch()
    raw = value["data"].tobytes()
    out = b"\x80\x02}" + put(1) + b"(" + text(b"batch_label") + put(2) + text(b"testing batch 1 of 1") + put(3)
    out += text(b"labels") + put(4) + b"]" + put(5) + b"("
    out += b"".join(b"K" + bytes([k]) for k in value["labels"]) + b"e"
    out += text(b"data") + put(6) + b"cnumpy.core.multiarray\n_reconstruct\n" + put(7) + b"cnumpy\nndarray\n" + put(8)
    out += b"K\x00\x85" + put(9) + text(b"b") + put(10) + b"\x87" + put(11) + b"R" + put(12)
    out += b"(K\x01K" + bytes([N]) + b"M" + struct.pack("<H", 3072) + b"\x86" + put(13)
    out += b"cnumpy\ndtype\n" + put(14) + text(b"u1") + put(15) + b"K\x00K\x01\x87" + put(16) + b"R" + put(17)
    out += b"(K\x03" + text(b"|") + put(18) + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00t" + put(19) + b"b"
    out += b"\x89T" + struct.pack("<I", len(raw)) + raw + put(20) + b"t" + put(21) + b"b"
    out += text(b"filenames") + put(22) + b"]" + put(23) + b"("
    out += b"".join(text(s.encode()) + put(24 + k) for k, s in enumerate(value["filenames"])) + b"eu."
    assert (pickle.loads(out, encoding="latin1")["data"] == value["data"]).all()
    return out


def main():
    os.makedirs(OUT, exist_ok=True)
    for protocol in range(5):
        write("protocol%d.pkl" % protocol, batch(), protocol)
    by_column = batch()
    by_column["data"] = np.asfortranarray(by_column["data"])
    write("fortran.pkl", by_column, 2)
    in_array = batch()
    in_array["labels"] = np.array(in_array["labels"], dtype=">i4")
    write("label_array.pkl", in_array, 4)
    in_bytes = {k.encode(): v for k, v in batch().items()}
    write("byte_keys.pkl", in_bytes, 3)
    write("protocol5.pkl", batch(), 5)
    write("hostile.pkl", {"data": Hostile(), "labels": [0]}, 4)
    write("meta.pkl", {"num_cases_per_batch": 10000, "label_names": ["name %d" % k for k in range(10)], "num_vis": 3072}, 2)
    with open(os.path.join(OUT, "python2.pkl"), "wb") as f:
        f.write(python2_batch())


if __name__ == "__main__":
    main()
