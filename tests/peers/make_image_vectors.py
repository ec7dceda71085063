#!/usr/bin/env python3
"""Write tests/vectors/image/: small pictures in files, and what Pillow makes of them. Needs NumPy, Pillow 11.3 or later
with WebP, and jpegtran (libjpeg-turbo-progs).

decode.txt  a line per check: file, channels, min_h, min_w, h, w, stored channels, orientation, tolerance, offset
resize.txt  a line per check: h, w, c, offset of the source, top, left, box h, box w, filter, out h, out w, offset
pixels.raw  all expected pixels and sources, [h,w,c] each

Expected pixels are Pillow's wherever Pillow is exact; 16-bit samples are rounded here, v * 255 / 65535."""
import io
import os
import struct
import subprocess
import zlib

import numpy as np
from PIL import Image, ImageOps

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors", "image")
rng = np.random.default_rng(7)
blob, kept, decode_lines, resize_lines = bytearray(), {}, [], []


def picture(h, w, c=3):
    """Smooth, with an edge and some noise; every channel its own."""
    y, x = np.mgrid[0:h, 0:w]
    planes = [127 + 90 * np.sin(x / (3.0 + k) + y / (5.0 + 2 * k)) + 60 * (x + y * (k + 1) > 3 * w // 2) for k in range(c)]
    return np.clip(np.stack(planes, -1) - 30 + rng.normal(0, 6, (h, w, c)), 0, 255).astype(np.uint8)


def keep(pixels):
    data = np.ascontiguousarray(pixels, np.uint8).tobytes()
    if data not in kept:
        kept[data] = len(blob)
        blob.extend(data)
    return kept[data]


def save(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def encoded(image, format, **options):
    b = io.BytesIO()
    image.save(b, format, **options)
    return b.getvalue()


def as_channels(image, channels):
    """A Pillow picture as h x w x channels."""
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    if channels in (1, 2):  # straight to LA Pillow takes another way
        grey = np.asarray(image.convert("RGB").convert("L"))
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        return np.stack([grey, alpha], -1)[..., :channels]
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, channels)


def check(name, stored, expected, channels=3, tolerance=0, orientation=1, least=(0, 0)):
    h, w = expected.shape[:2]
    decode_lines.append("%s %d %d %d %d %d %d %d %d %d" % (name, channels, *least, h, w, stored, orientation, tolerance,
                                                           keep(expected)))


def check_pillow(name, data, stored, channels=(3,), tolerance=0, orientation=1):
    """A file that Pillow reads right."""
    save(name, data)
    image = Image.open(io.BytesIO(data))
    assert image.getexif().get(0x112, 1) == orientation
    image = ImageOps.exif_transpose(image)
    for c in channels:
        check(name, stored, as_channels(image, c), c, tolerance, orientation)


# ---- EXIF

def exif(orientation, big_endian=False):
    """A TIFF block with two entries, the second of them the orientation."""
    e = ">" if big_endian else "<"
    entry = struct.pack(e + "HHI", 0x112, 3, 1) + struct.pack(e + "HH", orientation, 0)
    first = struct.pack(e + "HHII", 0x100, 4, 1, 99)
    return (b"MM\0*" if big_endian else b"II*\0") + struct.pack(e + "IH", 8, 2) + first + entry + bytes(4)


# ---- JPEG

def transcode(data, *options):
    """The same coefficients in another coding."""
    return subprocess.run(["jpegtran", "-copy", "all", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def segments(data):
    """(marker, start, end) of the segments up to the first scan."""
    at = 2
    while True:
        marker, length = data[at + 1], struct.unpack(">H", data[at + 2:at + 4])[0]
        yield marker, at, at + 2 + length
        if marker == 0xda:
            return
        at += 2 + length


def jpegs():
    colour, grey = Image.fromarray(picture(21, 27)), Image.fromarray(picture(21, 27, 1)[..., 0])
    for name, sampling in (("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0"), ("411", "4:1:1")):
        check_pillow("ycc_%s.jpg" % name, encoded(colour, "JPEG", quality=88, subsampling=sampling), 3, (3,), 1)
    plain = encoded(colour, "JPEG", quality=85)
    check_pillow("colour.jpg", plain, 3, (1, 2, 3, 4), 1)
    check_pillow("grey.jpg", encoded(grey, "JPEG", quality=85), 1, (1, 2, 3, 4), 1)
    check_pillow("one.jpg", encoded(colour.crop((5, 5, 6, 6)), "JPEG", quality=85), 3, (3,), 1)
    check_pillow("progressive.jpg", encoded(colour, "JPEG", quality=85, progressive=True), 3, (3,), 1)
    check_pillow("progressive_grey.jpg", encoded(grey, "JPEG", quality=85, progressive=True), 1, (1,), 1)
    check_pillow("restart.jpg", encoded(colour, "JPEG", quality=85, restart_marker_rows=1), 3, (3,), 1)
    check_pillow("rgb.jpg", encoded(colour, "JPEG", quality=85, keep_rgb=True), 3, (3,), 1)
    expected = as_channels(Image.open(io.BytesIO(plain)), 3)
    save("arithmetic.jpg", transcode(plain, "-arithmetic"))
    check("arithmetic.jpg", 3, expected, tolerance=1)
    with open(os.path.join(OUT, "scans.txt"), "w") as f:
        f.write("0;\n1;\n2;\n")
    save("separate.jpg", transcode(plain, "-scans", f.name))
    os.unlink(f.name)
    check("separate.jpg", 3, expected, tolerance=1)
    cmyk = encoded(colour.convert("CMYK"), "JPEG", quality=90)
    check_pillow("cmyk.jpg", cmyk, 4, (1, 3, 4), 1)
    adobe = next((start, end) for marker, start, end in segments(cmyk) if marker == 0xee)
    check_pillow("cmyk_plain.jpg", cmyk[:adobe[0]] + cmyk[adobe[1]:], 4, (3,), 1)
    check_pillow("ycck.jpg", cmyk[:adobe[1] - 1] + b"\2" + cmyk[adobe[1]:], 4, (3,), 1)
    small = Image.fromarray(picture(9, 13))
    for o in range(1, 9):
        check_pillow("turned_%d.jpg" % o, encoded(small, "JPEG", quality=90, exif=b"Exif\0\0" + exif(o, o % 2 == 0)), 3, (3,), 1, o)
    check_pillow("turned_grey.jpg", encoded(small.convert("L"), "JPEG", exif=b"Exif\0\0" + exif(6)), 1, (1, 3), 1, 6)
    save("bad_exif.jpg", encoded(small, "JPEG", quality=90, exif=b"Exif\0\0" + exif(6)[:20]))
    check("bad_exif.jpg", 3, as_channels(Image.open(os.path.join(OUT, "bad_exif.jpg")), 3), tolerance=1)
    large = encoded(Image.fromarray(picture(90, 131)), "JPEG", quality=80, exif=b"Exif\0\0" + exif(6))
    save("large.jpg", large)
    for least in ((131, 90), (66, 46), (66, 45), (33, 23), (17, 12), (16, 1), (0, 3), (132, 1)):
        scaled = Image.open(io.BytesIO(large))
        full = (90, 131)  # as shown
        for s in (8, 4, 2, 1):  # the sides of a picture at 1/s are rounded up
            if -(-full[1] // s) >= least[0] and -(-full[0] // s) >= least[1] or s == 1:
                break
        scaled.draft("RGB", (131 // s, 90 // s))
        expected = as_channels(ImageOps.exif_transpose(scaled), 3)
        assert expected.shape[:2] == (-(-131 // s), -(-90 // s)), (least, s, expected.shape)
        check("large.jpg", 3, expected, tolerance=1, orientation=6, least=least)


# ---- PNG

PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def scanlines(samples, depth):
    """Samples [h,w,c] as unfiltered PNG rows, but for every other one: those are filtered with Sub."""
    out = b""
    bpp = max(1, samples.shape[2] * depth // 8)
    for y, row in enumerate(samples):
        flat = row.reshape(-1)
        if depth == 16:
            packed = flat.astype(">u2").tobytes()
        elif depth == 8:
            packed = flat.astype(np.uint8).tobytes()
        else:
            bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
            packed = np.packbits(bits).tobytes()
        if y % 2:
            r = np.frombuffer(packed, np.uint8).astype(int)
            left = np.concatenate([np.zeros(bpp, int), r])[:len(r)]
            out += b"\1" + ((r - left) % 256).astype(np.uint8).tobytes()
        else:
            out += b"\0" + packed
    return out


def png(samples, depth, colour, interlaced=False, before=b"", after=b""):
    h, w = samples.shape[:2]
    if interlaced:
        parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES]
        raw = b"".join(scanlines(p, depth) for p in parts if p.size)
    else:
        raw = scanlines(samples, depth)
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(raw, 9)) + after + chunk(b"IEND", b"")


def luma(rgb):
    r = rgb.astype(np.int64)
    return ((19595 * r[..., 0] + 38470 * r[..., 1] + 7471 * r[..., 2] + 0x8000) >> 16)[..., None]


def to_channels(pixels, channels):
    """[h,w,1 to 4] of 8 bits to so many channels."""
    c = pixels.shape[2]
    alpha = pixels[..., -1:] if c % 2 == 0 else np.full(pixels.shape[:2] + (1,), 255)
    colour = pixels[..., :c - 1] if c % 2 == 0 else pixels
    if channels <= 2:
        colour = colour if colour.shape[2] == 1 else luma(colour)
    elif colour.shape[2] == 1:
        colour = np.repeat(colour, 3, 2)
    return np.concatenate([colour, alpha], 2) if channels % 2 == 0 else colour


def check_png(name, samples, depth, colour, expected, channels=(3,), pillow=True, **options):
    """expected: 8-bit pixels in as many channels as are stored."""
    data = png(samples, depth, colour, **options)
    save(name, data)
    for c in channels:
        pixels = to_channels(expected.astype(np.int64), c)
        if pillow and depth < 16:
            assert (as_channels(Image.open(io.BytesIO(data)), c) == pixels).all(), (name, c)
        check(name, expected.shape[2], pixels, c)


def pngs():
    h, w = 11, 13
    for depth in (1, 2, 4, 8):
        v = rng.integers(0, 1 << depth, (h, w, 1))
        check_png("grey%d.png" % depth, v, depth, 0, v * 255 // ((1 << depth) - 1), (1, 3))
        table = rng.integers(0, 256, (1 << depth, 3))
        plte = chunk(b"PLTE", table.astype(np.uint8).tobytes())
        check_png("palette%d.png" % depth, v, depth, 3, table[v[..., 0]], (1, 3, 4), before=plte)
    alphas = rng.integers(0, 256, 200)  # fewer than the palette has
    trns = plte + chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
    alpha = np.concatenate([alphas, np.full(56, 255)])
    v = rng.integers(0, 256, (h, w, 1))
    check_png("palette_trns.png", v, 8, 3, np.concatenate([table[v[..., 0]], alpha[v]], 2), (1, 2, 3, 4), before=trns)
    v = rng.integers(0, 4, (h, w, 1))
    grey = np.concatenate([v * 85, np.where(v == 2, 0, 255)], 2)
    check_png("grey_trns.png", v, 2, 0, grey, (1, 2, 3, 4), pillow=False,
              before=chunk(b"tRNS", struct.pack(">H", 2)))  # Pillow compares 2 with the level made of it, 170
    v = picture(h, w).astype(int)
    opaque = np.where((v == v[3, 4]).all(2, keepdims=True), 0, 255)
    check_png("rgb_trns.png", v, 8, 2, np.concatenate([v, opaque], 2), (3, 4), before=chunk(b"tRNS", struct.pack(">HHH", *v[3, 4])))
    for name, colour, c in (("rgb", 2, 3), ("grey_alpha", 4, 2), ("rgba", 6, 4)):
        v = rng.integers(0, 256, (h, w, c))
        check_png("%s8.png" % name, v, 8, colour, v, (1, 2, 3, 4))
        check_png("%s8_interlaced.png" % name, v, 8, colour, v, (c,), interlaced=True)
    for name, colour, c in (("grey", 0, 1), ("rgb", 2, 3), ("grey_alpha", 4, 2), ("rgba", 6, 4)):
        v = rng.integers(0, 65536, (h, w, c))
        v[0, :4] = [[127], [128], [129], [386]]  # about the halves between two levels
        check_png("%s16.png" % name, v, 16, colour, (v * 255 + 32767) // 65535, (1, 3, 4))
        check_png("%s16_interlaced.png" % name, v, 16, colour, (v * 255 + 32767) // 65535, (3,), interlaced=True)
    v = rng.integers(0, 65536, (h, w, 1))
    clear = np.where(v == v[2, 3], 0, 255)  # one level of 16 bits, not all that round to the same 8
    v[2, 4] = v[2, 3] ^ 1
    clear[2, 4] = 255
    check_png("grey16_trns.png", v, 16, 0, np.concatenate([(v * 255 + 32767) // 65535, clear], 2), (2, 4),
              before=chunk(b"tRNS", struct.pack(">H", v[2, 3, 0])))
    for size in ((1, 1), (1, 9), (9, 1), (5, 5)):
        v = rng.integers(0, 4, size + (1,))
        check_png("tiny_%dx%d.png" % size, v, 2, 0, v * 85, (3,), interlaced=True)
    v = rng.integers(0, 256, (h, w, 3))
    extra = chunk(b"gAMA", struct.pack(">I", 20000)) + chunk(b"tEXt", b"Comment\0nothing")
    check_png("gamma.png", v, 8, 2, v, before=extra)
    v = picture(7, 10).astype(int)
    for name, where in (("before", {"before": chunk(b"eXIf", exif(6))}), ("after", {"after": chunk(b"eXIf", exif(8, True))})):
        data = png(v, 8, 2, **where)
        check_pillow("turned_%s.png" % name, data, 3, (3, 1), 0, 6 if name == "before" else 8)


# ---- WebP

def webps():
    colour = Image.fromarray(picture(24, 31))
    alpha = Image.fromarray(picture(12, 9, 4))
    check_pillow("lossy.webp", encoded(colour, "WEBP", quality=80), 3, (1, 3, 4), 1)
    check_pillow("lossless.webp", encoded(colour.crop((0, 0, 12, 9)), "WEBP", lossless=True), 3, (3,))
    check_pillow("alpha.webp", encoded(alpha, "WEBP", lossless=True, exact=True), 4, (2, 3, 4))
    check_pillow("lossy_alpha.webp", encoded(alpha, "WEBP", quality=80, exact=True), 4, (3, 4), 1)
    check_pillow("turned.webp", encoded(alpha.convert("RGB"), "WEBP", lossless=True, exif=exif(5)), 3, (3,), 0, 5)
    frames = [Image.fromarray(picture(8, 8)) for _ in range(2)]
    save("animated.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))


# ---- resizing

def resized(source, box, filter, size):
    """Rows, then columns, as every Pillow before 13 does in one call; alpha is multiplied in and out as there."""
    c = source.shape[2]
    mode, inner = {1: ("L", "L"), 2: ("LA", "La"), 3: ("RGB", "RGB"), 4: ("RGBA", "RGBa")}[c]
    image = Image.fromarray(source[..., 0] if c == 1 else source, mode)
    top, left, h, w = box
    filter = (Image.BILINEAR, Image.BICUBIC)[filter]
    if box == (0, 0) + source.shape[:2] and size == source.shape[:2]:
        return source
    rows = image.convert(inner).resize((size[1], source.shape[0]), filter, (left, 0, left + w, source.shape[0]))
    both = rows.resize((size[1], size[0]), filter, (0, top, size[1], top + h)).convert(mode)
    return np.asarray(both).reshape(size + (c,))


def resizes():
    cases = (((19, 23), (0, 0, 19, 23), (8, 9)), ((19, 23), (0, 0, 19, 23), (25, 33)), ((19, 23), (0, 0, 19, 23), (19, 9)),
             ((19, 23), (0, 0, 19, 23), (7, 23)), ((19, 23), (0, 0, 19, 23), (19, 23)), ((19, 23), (2, 3, 11, 17), (16, 16)),
             ((19, 23), (2, 3, 8, 10), (8, 10)), ((19, 23), (1.25, 2.5, 14.5, 16.75), (9, 21)), ((19, 23), (3.75, 0.5, 0.25, 0.5), (5, 6)),
             ((19, 23), (18.5, 22.5, 0.5, 0.5), (3, 3)), ((64, 3), (0, 0, 64, 3), (2, 33)), ((1, 1), (0, 0, 1, 1), (4, 5)),
             ((1, 7), (0, 0, 1, 7), (3, 2)), ((50, 41), (0, 0, 50, 41), (1, 1)))
    for c in (1, 2, 3, 4):
        for n, (size, box, out) in enumerate(cases):
            noise = rng.integers(0, 256, size + (c,), dtype=np.uint8)
            source = np.where(noise > 127, 255, 0).astype(np.uint8) if n % 2 else noise
            at = keep(source)
            for filter in (0, 1):
                expected = keep(resized(source, box, filter, out))
                resize_lines.append("%d %d %d %d %r %r %r %r %d %d %d %d" % (*size, c, at, *map(float, box), filter, *out, expected))


os.makedirs(OUT, exist_ok=True)
for old in os.listdir(OUT):
    os.unlink(os.path.join(OUT, old))
jpegs()
pngs()
webps()
resizes()
save("decode.txt", ("\n".join(decode_lines) + "\n").encode())
save("resize.txt", ("\n".join(resize_lines) + "\n").encode())
save("pixels.raw", bytes(blob))
print("%d files, %d bytes, %d + %d checks" % (len(os.listdir(OUT)), sum(os.path.getsize(os.path.join(OUT, f)) for f in os.listdir(OUT)),
                                             len(decode_lines), len(resize_lines)))
