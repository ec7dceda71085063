#!/usr/bin/env python3
"""Write the seeds of the fuzz corpus, tests/fuzz/corpus/TARGET/seed-*: small files of each format, right ones and wrong ones.
Files of other names in the corpus are inputs that once failed; they stay. Pictures need Pillow."""
import gzip
import io
import json
import os
import struct
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
VECTORS = os.path.join(HERE, "..", "vectors")


def put(target, name, data):
    folder = os.path.join(HERE, "corpus", target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "seed-" + name), "wb") as f:
        f.write(data)


def part(data):
    """One file of several in an input: see fvt_next_part."""
    return struct.pack("<H", len(data)) + data


def packed(data, level=9):
    return gzip.compress(data, level, mtime=0)


def pixels(n, step=31):
    return bytes((step * i + i // 256) % 251 for i in range(n))


# ---------------------------------------------------------------- safetensors, states
SIZES = {"F32": 4, "F64": 8, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "U8": 1}


def tensors(entries, meta=None, pad=True):
    """entries: (name, dtype, shape), contents small whole numbers or floats."""
    header, data = {}, b""
    if meta:
        header["__metadata__"] = meta
    for name, dtype, shape in entries:
        count = 1
        for d in shape:
            count *= d
        code = {"F32": "f", "F64": "d", "I64": "q", "I32": "i", "U8": "B"}.get(dtype, "H")
        values = struct.pack("<%d%s" % (count, code), *[(i + 1) % 100 for i in range(count)])
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    if pad:
        text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def safetensors():
    put("safetensors", "one", tensors([("a", "F32", (2, 2))]))
    put("safetensors", "types", tensors([("t%d" % i, d, (2, 1)) for i, d in enumerate(SIZES)], {"format": "pt"}))
    put("safetensors", "scalar", tensors([("s", "F64", ()), ("empty", "U8", (0, 3))]))
    put("safetensors", "meta", tensors([("w", "I32", (1,))], {"writer": "x", "a\"b\\": "\u00e9\u20ac\U0001f600\n"}))
    put("safetensors", "writer", tensors([("w", "U8", (1,))], {"writer": "fovea 0.1.0", "fovea_xxh3": "0" * 16}))
    put("safetensors", "none", tensors([]))
    put("safetensors", "hole", struct.pack("<Q", 61) + b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"b":0}  ' + b"abcd")
    put("safetensors", "length", struct.pack("<Q", 2 ** 63) + b"{}")
    put("safetensors", "escape", struct.pack("<Q", 20) + b'{"\\ud83d\\ude00\\/":0}')
    model = [("conv1.weight", "F32", (2, 1, 1, 1)), ("bn1.num_batches_tracked", "I64", ()), ("fc.weight", "F32", (3, 2)), ("fc.bias", "F32", (3,))]
    put("state", "model", tensors(model))
    put("state", "head", tensors(model[:2] + [("fc.weight", "F32", (5, 2)), ("fc.bias", "F32", (5,))]))
    put("state", "half", tensors([(n, "BF16" if d == "F32" else d, s) for n, d, s in model]))
    state = [("model." + n, d, s) for n, d, s in model]
    state += [("opt.momentum.conv1.weight", "F32", (2, 1, 1, 1)), ("ema.fc.weight", "F32", (3, 2))]
    put("state", "state", tensors(state, {"step": "7"}))
    put("state", "missing", tensors(state[:-1]))
    put("state", "shape", tensors(state[:-1] + [("ema.fc.weight", "F32", (2, 3))]))


# ---------------------------------------------------------------- config.json, YAML
def config():
    cfg = {"architecture": "resnet20", "num_classes": 3, "label_names": ["cat", "dog", "\u00e9"],
           "pretrained_cfg": {"input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.875,
                              "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    put("config", "full", json.dumps(cfg).encode())
    put("config", "flat", json.dumps({"architecture": "mlp", "input_size": [1, 28, 28]}).encode())
    put("config", "timm", json.dumps({"architecture": "vit", "num_classes": 0, "pretrained_cfg": {"input_size": [4, 8, 8], "crop_pct": 1, "mean": None,
                                      "num_classes": 1000, "tag": "x", "url": ""}}).encode())
    put("config", "many", json.dumps({"architecture": "x", "input_size": [16, 1, 1], "mean": [1e-300] * 16, "std": [1e300] * 16}).encode())
    put("config", "twice", b'{"architecture":"a","architecture":"b"}')
    put("config", "deep", b"[" * 3000)
    put("config", "number", b'{"architecture":"a","input_size":[3,1e99,-0],"crop_pct":1e400}')
    put("config", "escape", b'{"architecture":"\\u0000\\ud800","input_size":[3,9223372036854775808,1]}')


def yaml():
    put("yaml", "options", b"# a run\ndata: synthetic\nepochs: 2\nbatch_size: 64\nlr: 0.05\nmean: [0.5, 0.5, 0.5]\nstd: 0.25,0.25,0.25\nmodel-ema: true\n")
    put("yaml", "quoted", b"name: \"a\\x41\\u263A: b\"\noutput: 'it''s'\nmodel: |\n  resnet20\nsched: >-\n  cosine\npretrained: ~\n")
    put("yaml", "alias", b"mean: &a [0.5, 0.5]\nstd: *a\n")
    put("yaml", "flow", b"{data: synthetic, betas: [0.9, 0.999], milestones: [1, 2], quiet: yes}\n")
    put("yaml", "tags", b"%YAML 1.1\n---\n!!map\nepochs: !!int 3\nname: !!str 0x1F\n...\n---\nseed: 1\n")
    put("yaml", "unknown", b"epoch: 1\n")
    put("yaml", "nested", b"data: {a: b}\n")
    put("yaml", "complex", b"? {a: b}\n: c\n")
    put("yaml", "list", b"mean: [" + b"1," * 40 + b"1]\n")
    put("yaml", "bytes", b"name: \xff\xfe\x00\x1b[2J\n")
    put("yaml", "utf16", "\ufeffname: x\n".encode("utf-16-le"))
    put("yaml", "null", b"data:\nlr: null\nepochs: ~\nname: 'null'\nmodel: \"~\"\noutput: '12'\n")


# ---------------------------------------------------------------- IDX, CIFAR, pickles
def idx():
    def images(n, h, w):
        return struct.pack(">IIII", 0x803, n, h, w) + pixels(n * h * w)

    def labels(n):
        return struct.pack(">II", 0x801, n) + bytes(7 * i % 10 for i in range(n))

    put("idx", "plain", part(labels(3)) + images(3, 3, 2))
    put("idx", "packed", part(packed(labels(3))) + packed(images(3, 3, 2)))
    put("idx", "counts", part(labels(2)) + images(3, 1, 1))
    put("idx", "label", part(labels(2)[:-1] + b"\x0a") + images(2, 1, 1))
    put("idx", "huge", part(labels(1)) + struct.pack(">IIII", 0x803, 2 ** 31, 2 ** 31, 4))
    put("idx", "bomb", part(labels(1)) + packed(struct.pack(">IIII", 0x803, 1, 60000, 60000) + bytes(1 << 15)))
    put("idx", "magic", part(struct.pack(">II", 0x901, 1) + b"\0") + images(1, 1, 1))


def cifar():
    record = pixels(3072)
    put("cifar", "ten", b"\0" + part(b"") + b"\x03" + record)
    put("cifar", "names", b"\0" + part(b"".join(b"c%d\n" % i for i in range(10)) + b"\n") + b"\x09" + record + b"\0" + bytes(3072))
    put("cifar", "names_windows", b"\0" + part(b"".join(b"c%d\r\n" % i for i in range(10))) + b"\x09" + record)
    put("cifar", "names_bad", b"\0" + part(b"a\nb\x07\n") + b"\x09" + record)
    put("cifar", "hundred", b"\1" + part(b"") + b"\x13\x63" + record)
    put("cifar", "label", b"\0" + part(b"") + b"\x0a" + record)
    put("cifar", "cut", b"\0" + part(b"") + b"\x00" + record[:-1])


def pickles():
    folder = os.path.join(VECTORS, "pickles")
    for name in sorted(os.listdir(folder)):
        stem = name.split(".")[0]
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        if len(data) < 1000:
            put("pickle", stem, data)
        elif stem in ("protocol0", "protocol4", "python2", "fortran", "label_array"):
            with open(os.path.join(folder, "meta.pkl"), "rb") as f:
                put("cifar_python", stem, part(f.read() if stem == "protocol4" else b"") + data)
    array = (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02K\x03\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
             b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftb.")
    put("pickle", "array", b"\x80\x02" + array)
    put("pickle", "array_big", array.replace(b"u1", b"i2").replace(b"U\x01|", b"U\x01>").replace(b"K\x03\x86", b"K\x01\x86").replace(b"U\x06abcdef", b"U\x04abcd"))
    put("pickle", "shape", array.replace(b"K\x02K\x03\x86", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7fK\x04\x86"))
    put("pickle", "protocol0", b"(dp0\nS'a\\x41\\n'\np1\nI7\nsVu\\u20ac\np2\n(lp3\nL12L\naI01\nas.")
    put("pickle", "cycle", b"]p0\ng0\na.")
    put("pickle", "memo", b"]\x94]\x94h\x00h\x01\x86\x94r\x05\x00\x00\x00j\x05\x00\x00\x00\x86.")
    put("pickle", "frame", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00(K\x01\x88\x89N\x87t.")
    put("pickle", "encode", b"c_codecs\nencode\n(X\x03\x00\x00\x00a\xc3\xa9Vlatin1\ntR.")
    put("pickle", "global4", b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02i8\x89\x88\x87R.")


# ---------------------------------------------------------------- gzip, archives
def tar(members, repair=True):
    out = b""
    for name, data, kind in members:
        head = bytearray(512)
        head[0:len(name)] = name
        head[100:124] = b"0000644\x000000000\x000000000\x00"
        head[124:136] = b"%011o\x00" % len(data)
        head[136:148] = b"00000000000\x00"
        head[156:157] = kind
        head[257:265] = b"ustar\x0000"
        head[148:156] = b" " * 8
        if repair:
            head[148:156] = b"%06o\x00 " % sum(head)
        out += bytes(head) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def streams():
    data = b"hello " * 50 + pixels(300)
    put("gzip", "plain", b"\x02" + data)
    put("gzip", "packed", b"\x03" + packed(data))
    put("gzip", "stored", b"\x01" + packed(data[:60], 0))
    put("gzip", "named", b"\x0f\x1f\x8b\x08\x1f\0\0\0\0\0\3\x02\0ab" + b"name\0" + b"comment\0" + b"\0\0" + packed(b"x" * 9)[10:])
    put("gzip", "bomb", b"\xff" + packed(bytes(80000)))
    put("gzip", "two", b"\x04" + packed(b"one") + packed(b"two"))
    put("gzip", "trailing", b"\x04" + packed(b"one") + b"junk")
    put("gzip", "checksum", b"\x05" + packed(data)[:-8] + b"\0" * 8)
    put("gzip", "fixed", b"\x06\x1f\x8b\x08\0\0\0\0\0\0\3" + zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_FIXED).flush() + bytes(8))
    good = [(b"set/", b"", b"5"), (b"set/one.bin", pixels(600), b"0"), (b"./set/two.bin", b"two", b"0"), (b"set/readme", b"text", b"0")]
    put("archive", "good", b"\0" + tar(good))
    put("archive", "whole", b"\1" + tar(good))
    put("archive", "packed", b"\1" + packed(tar(good)))
    put("archive", "missing", b"\0" + tar(good[:2]))
    put("archive", "twice", b"\0" + tar(good[:2] + good[1:]))
    put("archive", "link", b"\0" + tar([(b"set/one.bin", b"", b"2")] + good))
    put("archive", "elsewhere", b"\0" + tar([(b"../../etc/x", b"x", b"0"), (b"/etc/one.bin", b"x", b"0")] + good))
    put("archive", "huge", b"\0" + tar(good).replace(b"%011o" % 600, b"77777777777"))
    put("archive", "checksum", b"\1" + tar(good, repair=False))


# ---------------------------------------------------------------- lists, pictures
def lists():
    rows = "cat/1.jpg,cat,train\ncat/2.jpg,cat,val\ndog/1.jpg,dog,test\n"
    put("csv", "header", ("path,label,split\n" + rows).encode())
    put("csv", "plain", b"a.png,x\nb.png,y\n")
    put("csv", "quoted", b'"a,b.png","say ""hi""|two"\r\n"c\nd.png", x \r\n')
    put("csv", "mark", b"\xef\xbb\xbfid,file,label\n1,a.jpg,\xc3\xa9\n2,b.jpg,|\n")
    put("csv", "several", b"Makefile,a|b\nREADME.md,\n./LICENSE,b\n")
    put("csv", "columns", b"a,b,c,d\n")
    put("csv", "utf16", "\ufeffa.png,x\n".encode("utf-16-le"))
    put("csv", "nul", b"a.png,x\0y\n")
    put("csv", "open", b'a.png,"x\ny\n')
    put("csv", "twice", b"a.png,x\na.png,y\n")
    put("csv", "numbers", b"Makefile,10\nREADME.md,9\n")
    put("split", "good", b'path,part\ncat/1.jpg,train\ncat/2.jpg,val\ndog/1.jpg,test\n"dog/a ""b"".png",train\n')
    put("split", "plain", b'./cat/1.jpg,train\ncat/2.jpg,validation\ndog/1.jpg,TEST\n"dog/a ""b"".png", valid\n')
    put("split", "missing", b"cat/1.jpg,train\n")
    put("split", "unknown", b"cat/9.jpg,train\n")
    put("split", "word", b"cat/1.jpg,training\n")


def png(w, h, depth, colour, rows, extra=b"", interlace=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pictures():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    put("image", "png_grey", b"\x20" + png(3, 2, 8, 0, b"\0abc\1def"))
    put("image", "png_colour", b"\x22" + png(2, 2, 8, 2, b"\2abcdef\4ghijkl"))
    put("image", "png_palette", b"\x23" + png(5, 1, 2, 3, b"\0\x1b\x40", chunk(b"PLTE", bytes(range(12))) + chunk(b"tRNS", b"\0\x80")))
    put("image", "png_sixteen", b"\1" + png(2, 1, 16, 4, b"\0\0\1\2\3\4\5\6\7"))
    put("image", "png_alpha", b"\x17" + png(2, 1, 8, 6, b"\0abcdefgh"))
    put("image", "png_bits", b"\x10" + png(9, 2, 1, 0, b"\0\xaa\x80\0\x55\0"))
    put("image", "png_interlaced", b"\x22" + png(3, 3, 8, 0, b"\0a\0b\0cd\0e\0f\0ghi", interlace=1))
    put("image", "png_huge", b"\2" + png(30000, 30000, 8, 2, bytes(100)))
    put("image", "png_exif", b"\x22" + png(3, 2, 8, 0, b"\0abc\1def", chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")))
    put("image", "png_text", b"\x20" + png(1, 1, 8, 0, b"\0a", chunk(b"zTXt", b"k\0\0" + zlib.compress(b"text")) + chunk(b"gAMA", b"\0\0\xb1\x8f")))
    put("image", "png_crc", b"\0" + png(1, 1, 8, 0, b"\0a")[:-1])
    put("image", "gif", b"\0GIF89a\1\0\1\0\0\0\0;")
    try:
        from PIL import Image
    except ImportError:
        print("no Pillow: JPEG and WebP seeds stay as they are")
        return
    colour = Image.frombytes("RGB", (17, 9), pixels(17 * 9 * 3))
    exif = Image.Exif()
    exif[0x0112] = 6

    def save(name, how, image, kind, **options):
        out = io.BytesIO()
        image.save(out, kind, **options)
        put("image", name, bytes([how]) + out.getvalue())

    save("jpeg_colour", 2, colour, "JPEG", quality=60, subsampling=2)
    save("jpeg_reduced", 10, colour.resize((40, 24)), "JPEG", quality=30)
    save("jpeg_progressive", 2, colour, "JPEG", quality=50, progressive=True)
    save("jpeg_grey", 0, colour.convert("L"), "JPEG", quality=50, optimize=True)
    save("jpeg_cmyk", 18, colour.convert("CMYK"), "JPEG", quality=50)
    save("jpeg_exif", 2, colour, "JPEG", quality=40, exif=exif)
    save("jpeg_restart", 1, colour.resize((64, 16)), "JPEG", quality=20, restart_marker_blocks=1)
    save("webp_lossy", 2, colour, "WEBP", quality=40)
    save("webp_lossless", 3, colour.convert("RGBA"), "WEBP", lossless=True, exif=exif)


def main():
    lists()
    pictures()
    safetensors()
    config()
    yaml()
    idx()
    cifar()
    pickles()
    streams()


if __name__ == "__main__":
    main()
