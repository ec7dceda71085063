"""Philox4x32-10 and Fovea's name hash in numpy: the same words as core/rng.c, so that both sides can make the same tensors."""
import numpy as np

U32, U64 = np.uint32, np.uint64


def fold(x):
    x = np.asarray(x, U64)
    return ((x & U64(0xFFFFFFFF)) ^ ((x >> U64(32)) * U64(0x9E3779B9) & U64(0xFFFFFFFF))).astype(U32)


def philox4x32(key, c0, c1, c2, c3):
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    c = [np.asarray(v, U64) for v in (c0, c1, c2, c3)]
    for _ in range(10):
        p0, p1 = U64(0xD2511F53) * c[0], U64(0xCD9E8D57) * c[2]
        c = [(p1 >> U64(32)) ^ c[1] ^ U64(k0), p1 & U64(0xFFFFFFFF), (p0 >> U64(32)) ^ c[3] ^ U64(k1), p0 & U64(0xFFFFFFFF)]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def hash_name(name):
    h = 2166136261
    for byte in name.encode():
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    h = ((h ^ h >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    h = ((h ^ h >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ h >> 16


def uniform(seed, name, count, row=0):
    """count doubles in (0,1): word 0 of (seed; element, row, step 0, stream of the name)."""
    e = np.arange(count, dtype=U64)
    words = philox4x32(seed, fold(e), np.full(count, fold(row), U64), np.zeros(count, U64), np.full(count, hash_name(name), U64))
    return (words[0].astype(np.float64) + 0.5) / 4294967296.0
