"""The views of test-time augmentation as sets of their own, for test_tta.sh; only Python's own library is needed.

usage: make_views.py files LIST.CSV FOLDER   each test picture of the list as FOLDER/NAME-0.png to -5.png
       make_views.py idx FOLDER              FOLDER/0 to 5: IDX sets of two classes whose test pictures are a view each; FOLDER/symmetric: of
                                             pictures that are their own mirror images

The views, in the order of the weights 1/4, 1/4, 1/8, 1/8, 1/8, 1/8: the picture, its mirror image; both of the picture as it is seen through a
window a pixel further up and left, and a pixel further down and right, with its border reflected.
"""
import csv
import os
import random
import struct
import sys
import zlib


def reflected(i, n):
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def window(rows, by):
    """rows [h][w] of pixels, whatever they are, seen from (by, by)."""
    h, w = len(rows), len(rows[0])
    return [[rows[reflected(y + by, h)][reflected(x + by, w)] for x in range(w)] for y in range(h)]


def views(rows):
    for by in (0, -1, 1):
        seen = window(rows, by)
        yield seen
        yield [row[::-1] for row in seen]


def read_png(path):
    """Of make_pictures.py: one IDAT, no filters."""
    with open(path, "rb") as f:
        data = f.read()
    w, h = struct.unpack(">II", data[16:24])
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    raw = zlib.decompress(packed)
    assert all(raw[y * (3 * w + 1)] == 0 for y in range(h))
    return [[raw[y * (3 * w + 1) + 1 + 3 * x:][:3] for x in range(w)] for y in range(h)]


def write_png(path, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + b"".join(row) for row in rows)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def files(listing, folder):
    os.makedirs(folder, exist_ok=True)
    with open(listing, encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            if row["split"] != "test":
                continue
            name = os.path.splitext(os.path.basename(row["path"]))[0]
            for v, rows in enumerate(views(read_png(os.path.join(os.path.dirname(listing), row["path"])))):
                write_png(os.path.join(folder, f"{name}-{v}.png"), rows)


def write_idx(folder, train, test):
    os.makedirs(folder, exist_ok=True)
    for stem, (pictures, labels) in (("train", train), ("t10k", test)):
        with open(os.path.join(folder, stem + "-images-idx3-ubyte"), "wb") as f:
            f.write(struct.pack(">IIII", 0x803, len(pictures), len(pictures[0]), len(pictures[0][0])))
            f.write(b"".join(bytes(row) for picture in pictures for row in picture))
        with open(os.path.join(folder, stem + "-labels-idx1-ubyte"), "wb") as f:
            f.write(struct.pack(">II", 0x801, len(labels)) + bytes(labels))


def idx(folder):
    """Class 1 is brighter on its left side, a little."""
    random.seed(3)
    def picture(label, h=17, w=14):
        return [[min(255, max(0, int(random.gauss(120 + 20 * label * (1 - 2 * x // w), 60)))) for x in range(w)] for _ in range(h)]
    labels = [i % 2 for i in range(120)]
    train, test = [picture(k) for k in labels], [picture(k) for k in labels]
    for v in range(6):
        write_idx(os.path.join(folder, str(v)), (train, labels), ([list(views(p))[v] for p in test], labels))
    write_idx(os.path.join(folder, "symmetric"), (train, labels), ([[row + row[::-1] for row in p] for p in [picture(k, 17, 7) for k in labels]], labels))


files(*sys.argv[2:]) if sys.argv[1] == "files" else idx(*sys.argv[2:])
