#!/usr/bin/env python3
"""Prints core/cpu/gelu_pieces.c, which clang-format then arranges: polynomials of 32 pieces for GELU and its slope
(core/cpu/kernels/act.h).

Piece i is around i * WIDTH. Each goes through the function at Chebyshev's points of the piece, which is within a
fraction of the best of its degree; both functions are those of -a, for a >= 0:

  cdf(a)    P(N(0,1) <= -a)             GELU(-a) = -a cdf(a),  GELU(a) = a (1 - cdf(a))
  slope(a)  cdf(a) - a e^(-a^2/2) / sqrt(2 pi)                 GELU'(a) = 1 - slope(a)
"""
import math

PIECES, WIDTH, DEGREE = 32, 0.1875, 4
HEADER = "core/cpu/cpu.h"


def cdf(a):
    return 0.5 * math.erfc(a / math.sqrt(2))


def slope(a):
    return cdf(a) - a * math.exp(-a * a / 2) / math.sqrt(2 * math.pi)


def interpolate(f, center):
    """Coefficients, lowest first, of the polynomial in a - center."""
    n = DEGREE + 1
    at = [WIDTH / 2 * math.cos(math.pi * (k + 0.5) / n) for k in range(n)]
    value = [f(center + x) for x in at]
    for level in range(1, n):  # Newton's divided differences
        for k in range(n - 1, level - 1, -1):
            value[k] = (value[k] - value[k - 1]) / (at[k] - at[k - level])
    poly = [0.0] * n
    for k in range(n - 1, -1, -1):
        poly = [value[k] - at[k] * poly[0]] + [poly[i] - at[k] * poly[i + 1] for i in range(n - 1)]
    return poly


def table(f):
    pieces = [interpolate(f, i * WIDTH) for i in range(PIECES)]
    for k in range(DEGREE + 1):
        print("        {")
        for first in range(0, PIECES, 4):
            print("            " + ", ".join(f"{p[k]:.9e}f" for p in pieces[first : first + 4]) + ",")
        print("        },")


print("/* gelu_pieces.c: printed by tools/fit-gelu.py. By function, power and piece. */")
print(f'#include "{HEADER}"\n')
print("const float fv_gelu_pieces[2][5][32] = {")
for f in cdf, slope:
    print("    {")
    table(f)
    print("    },")
print("};")
