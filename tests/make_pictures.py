"""Small PNG pictures and a CSV file for the shell tests; only Python's own library is needed.

usage: make_pictures.py FOLDER COUNT several|one

several: list.csv, in which a picture of 16 x 16 pixels has any of the labels red, green and "blue, deep", or none; the channel of a label is
bright on average, so that it can be learnt. one: list.csv with one label each: nine tenths are `dark`, one tenth `light`. The last quarter of
the pictures is the test set.
"""
import os
import random
import struct
import sys
import zlib

SIZE = 16


def png(rows):
    """rows: SIZE rows of SIZE * 3 bytes."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + bytes(row) for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIZE, SIZE, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def main(folder, count, kind):
    random.seed(7)
    names = ["red", "green", "blue, deep"]
    os.makedirs(os.path.join(folder, "pictures"), exist_ok=True)
    with open(os.path.join(folder, "list.csv"), "w", encoding="utf-8") as out:
        print("path,label,split", file=out)
        for i in range(count):
            if kind == "several":
                there = [random.random() < share for share in (0.5, 0.3, 0.1)]
                level = [170 if t else 85 for t in there]
                label = "|".join(n for n, t in zip(names, there) if t)
            else:
                light = i % 10 == 0
                level = [150 if light else 105] * 3
                label = "light" if light else "dark"
            rows = [[min(255, max(0, int(random.gauss(level[k % 3], 60)))) for k in range(SIZE * 3)] for _ in range(SIZE)]
            name = f"pictures/{i:04d}.png"
            with open(os.path.join(folder, name), "wb") as f:
                f.write(png(rows))
            print(f'{name},"{label}",{"test" if i >= count * 3 // 4 else "train"}', file=out)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
