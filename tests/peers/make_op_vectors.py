#!/usr/bin/env python3
"""Frozen vectors of single operations, computed by PyTorch in float64: tests/vectors/ops.safetensors.

usage: make_op_vectors.py OUT

Each case k has metadata "case.k" = "op key=value ..." (the attribute as tests/test_parity.c reads it) and tensors
"k.in<i>" (operands, in Fovea's layout), "k.out<i>" (results), "k.dout" (cotangent of result 0), "k.din<i>" (its gradients).
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

import philox

torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(20240607)
tensors, meta = {}, {}


def t(*shape):
    return torch.from_numpy(rng.standard_normal(shape))


def case(op, attrs, inputs, fn, grad=None):
    """inputs: tensors or None; fn(*inputs) -> result or tuple. grad: indices of inputs to differentiate (default: all floats)."""
    k = len(meta)
    if grad is None:
        grad = [i for i, x in enumerate(inputs) if x is not None and x.is_floating_point()]
    xs = [None if x is None else x.clone().requires_grad_(i in grad) for i, x in enumerate(inputs)]
    out = fn(*xs)
    out = out if isinstance(out, tuple) else (out,)
    meta[f"case.{k}"] = (op + " " + attrs).strip()
    for i, x in enumerate(inputs):
        if x is not None:
            tensors[f"{k}.in{i}"] = x.detach().numpy().copy()
    for i, y in enumerate(out):
        tensors[f"{k}.out{i}"] = y.detach().contiguous().numpy().copy()
    if grad:
        dout = t(*out[0].shape) if out[0].ndim else torch.tensor(float(rng.standard_normal()))
        tensors[f"{k}.dout"] = dout.numpy().copy()
        gs = torch.autograd.grad(out[0], [xs[i] for i in grad], dout)
        for i, g in zip(grad, gs):
            tensors[f"{k}.din{i}"] = g.contiguous().numpy().copy()


nchw = lambda x: x.permute(0, 3, 1, 2)
nhwc = lambda x: x.permute(0, 2, 3, 1)
pair = lambda v: ",".join(str(i) for i in v)


# ---- convolution: n h w c k r s stride pad(t,l,b,r) dilation groups bias
def conv(n, h, w, c, k, r, s, stride=(1, 1), pad=(0, 0, 0, 0), dil=(1, 1), g=1, bias=False):
    def fn(x, wt, b=None):
        xp = F.pad(nchw(x), (pad[1], pad[3], pad[0], pad[2]))
        return nhwc(F.conv2d(xp, nchw(wt), b, stride, 0, dil, g))
    case("conv2d", f"stride={pair(stride)} pad={pair(pad)} dilation={pair(dil)} groups={g}",
         [t(n, h, w, c), t(k, r, s, c // g)] + ([t(k)] if bias else []), fn)


conv(1, 5, 5, 1, 1, 3, 3)
conv(2, 6, 5, 3, 4, 3, 3, pad=(1, 1, 1, 1), bias=True)
conv(2, 7, 8, 4, 6, 3, 3, stride=(2, 2), pad=(1, 1, 1, 1))
conv(1, 8, 8, 5, 3, 1, 1, bias=True)
conv(1, 9, 9, 3, 2, 1, 1, stride=(2, 2))
conv(1, 9, 7, 2, 17, 5, 3, stride=(2, 1), pad=(2, 0, 1, 1))
conv(2, 6, 6, 6, 4, 3, 3, pad=(1, 1, 1, 1), g=2)
conv(2, 5, 6, 5, 5, 3, 3, pad=(1, 1, 1, 1), g=5, bias=True)
conv(1, 9, 9, 4, 8, 3, 3, stride=(2, 2), pad=(1, 1, 1, 1), g=4)
conv(1, 9, 9, 3, 3, 3, 3, pad=(2, 2, 2, 2), dil=(2, 2))
conv(1, 6, 6, 3, 5, 3, 3, pad=(1, 1, 0, 0))
conv(1, 11, 11, 3, 4, 7, 7, stride=(2, 2), pad=(3, 3, 3, 3))
conv(1, 8, 8, 3, 6, 4, 4, stride=(4, 4), bias=True)
conv(3, 4, 3, 33, 2, 2, 2, pad=(0, 0, 1, 1))

# ---- matrices
for shape, out, bias in [((3, 4), 5, True), ((1, 1), 1, False), ((2, 3, 7), 4, True), ((5, 17), 3, False), ((2, 2, 2, 3), 2, True),
                         ((7, 33), 9, True), ((1, 16), 16, False), ((4, 5), 1, True), ((6, 2), 31, False), ((3, 3, 9), 8, True)]:
    case("linear", "", [t(*shape), t(out, shape[-1])] + ([t(out)] if bias else []), lambda x, w, b=None: F.linear(x, w, b))
for lead, m, k, n in [((), 3, 4, 5), ((2,), 3, 3, 2), ((2, 3), 4, 1, 5)]:
    for ta in (0, 1):
        for tb in (0, 1):
            a = t(*lead, *((k, m) if ta else (m, k)))
            b = t(*lead, *((n, k) if tb else (k, n)))
            case("matmul", f"transpose_a={ta} transpose_b={tb}", [a, b],
                 lambda a, b, ta=ta, tb=tb: (a.mT if ta else a) @ (b.mT if tb else b))


# ---- normalisation
def norm_axes(x, axes, eps):
    mean = x.mean(axes, keepdim=True)
    var = ((x - mean) ** 2).mean(axes, keepdim=True)
    return (x - mean) / (var + eps).sqrt(), mean, var


for shape in [(2, 3, 4, 5), (4, 1, 1, 3), (1, 5, 5, 17), (8, 2, 2, 1), (3, 3, 2, 8), (2, 7, 1, 16), (6, 4), (5, 33), (2, 2, 3, 4), (1, 8, 8, 2)]:
    c = shape[-1]
    axes = tuple(range(len(shape) - 1))
    for affine in (True, False):
        aff = [t(c), t(c)] if affine else [None, None]
        for act, res in ((0, 0), (1, 0), (1, 1)):
            if not affine and act:
                continue

            def bn(x, g=None, b=None, r=None, axes=axes, act=act):
                y, m, v = norm_axes(x, axes, 1e-5)
                y = y * g + b if g is not None else y
                y = y + r if r is not None else y
                return (y.relu() if act else y), m.flatten(), v.flatten()
            case("batch_norm", f"eps=1e-5 act={'relu' if act else 'none'}", [t(*shape), *aff] + ([t(*shape)] if res else []), bn)
    mean, var = t(c), t(c).abs() + 0.5

    def bni(x, m, v, g=None, b=None, r=None):
        y = (x - m) / (v + 1e-3).sqrt()
        y = y * g + b if g is not None else y
        return (y + r).relu() if r is not None else y
    case("batch_norm_infer", "eps=1e-3 act=none", [t(*shape), mean, var, t(c), t(c)], bni, grad=[0, 3, 4])
    case("batch_norm_infer", "eps=1e-3 act=relu", [t(*shape), mean, var, t(c), t(c), t(*shape)], bni, grad=[0, 3, 4, 5])
for shape in [(2, 3, 4, 5), (4, 1, 1, 3), (1, 5, 5, 17), (8, 2, 8), (3, 3, 2, 8), (2, 7, 1, 16), (6, 4), (5, 33), (2, 2, 3, 4), (1, 9, 64)]:
    case("layer_norm", "eps=1e-6", [t(*shape), t(shape[-1]), t(shape[-1])],
         lambda x, g, b: (lambda y, m, v: (y * g + b, m.squeeze(-1), (1 / (v + 1e-6).sqrt()).squeeze(-1)))(*norm_axes(x, (-1,), 1e-6)))
for shape, groups in [((2, 3, 3, 4), 2), ((1, 2, 2, 6), 3), ((2, 1, 1, 8), 4), ((3, 2, 5, 5), 1), ((2, 4, 4, 3), 3), ((1, 3, 2, 16), 4),
                      ((2, 2, 2, 10), 5), ((4, 2, 1, 4), 1), ((1, 1, 7, 6), 2), ((2, 3, 1, 9), 3)]:
    def gn(x, g, b, groups=groups):
        n, c = x.shape[0], x.shape[-1]
        y, m, v = norm_axes(x.reshape(n, -1, groups, c // groups), (1, 3), 1e-5)
        return y.reshape(x.shape) * g + b, m.reshape(n, groups), (1 / (v + 1e-5).sqrt()).reshape(n, groups)
    case("group_norm", f"eps=1e-5 groups={groups}", [t(*shape), t(shape[-1]), t(shape[-1])], gn)

# ---- activations
acts = {"relu": F.relu, "relu6": F.relu6, "leaky_relu": lambda x: F.leaky_relu(x, 0.1), "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "hardswish": F.hardswish, "hardsigmoid": lambda x: ((x + 3) / 6).clamp(0, 1),  # PyTorch's own gradient has 1/6 in float32
       
        "sigmoid": torch.sigmoid, "tanh": torch.tanh}
for name, f in acts.items():
    for scale in (1.0, 5.0):
        case("activation", f"kind={name} alpha=0.1", [t(3, 7, 5) * scale], f)

# ---- element-wise with broadcasting
pairs = [((2, 3), (2, 3)), ((2, 3), (3,)), ((2, 3, 4), (1, 3, 1)), ((4, 1), (1, 5)), ((3,), (2, 3)), ((2, 2, 3), ()), ((1,), (4,)),
         ((2, 3, 4, 5), (1, 1, 1, 5)), ((2, 3, 4, 5), (2, 1, 1, 1)), ((5, 1, 3), (5, 4, 1))]
for a, b in pairs:
    case("add", "", [t(*a), t(*b)], lambda x, y: x + y)
    case("sub", "", [t(*a), t(*b)], lambda x, y: x - y)
    case("mul", "", [t(*a), t(*b)], lambda x, y: x * y)
case("scale", "mul=-1.5 add=0.25", [t(3, 5)], lambda x: -1.5 * x + 0.25)


# ---- pooling, resizing
def pool_attr(k, s, p, ceil, cip):
    return f"kernel={pair(k)} stride={pair(s)} pad={pair((p[0], p[1], p[0], p[1]))} ceil={ceil} count_include_pad={cip}"


for shape, k, s, p, ceil in [((1, 4, 4, 1), (2, 2), (2, 2), (0, 0), 0), ((2, 5, 5, 3), (2, 2), (2, 2), (0, 0), 0), ((2, 7, 6, 3), (3, 3), (2, 2), (1, 1), 0),
                             ((1, 7, 7, 2), (3, 3), (2, 2), (0, 0), 1), ((1, 6, 5, 4), (3, 2), (1, 2), (1, 0), 0), ((2, 3, 3, 5), (3, 3), (3, 3), (0, 0), 0),
                             ((1, 8, 8, 1), (5, 5), (1, 1), (2, 2), 0), ((1, 5, 8, 2), (2, 3), (2, 3), (1, 1), 1), ((2, 4, 4, 17), (2, 2), (1, 1), (0, 0), 0),
                             ((1, 9, 4, 3), (4, 2), (3, 1), (2, 1), 0)]:
    def mp(x, k=k, s=s, p=p, ceil=ceil):
        return nhwc(F.max_pool2d(nchw(x), k, s, p, ceil_mode=bool(ceil)))
    case("max_pool2d", pool_attr(k, s, p, ceil, 0), [t(*shape)], mp)
    for cip in (0, 1):
        case("avg_pool2d", pool_attr(k, s, p, ceil, cip), [t(*shape)],
             lambda x, k=k, s=s, p=p, ceil=ceil, cip=cip: nhwc(F.avg_pool2d(nchw(x), k, s, p, bool(ceil), bool(cip))))
for (h, w), (oh, ow) in [((4, 4), (8, 8)), ((5, 3), (7, 9)), ((8, 8), (4, 4)), ((3, 3), (3, 3)), ((1, 1), (4, 5)), ((7, 5), (2, 3)), ((4, 6), (9, 1)),
                         ((2, 2), (5, 5)), ((6, 4), (3, 8)), ((5, 5), (10, 4))]:
    case("resize", f"mode=nearest align=0 out={oh},{ow}", [t(2, h, w, 3)], lambda x, o=(oh, ow): nhwc(F.interpolate(nchw(x), o, mode="nearest")))
    for align in (0, 1):
        case("resize", f"mode=bilinear align={align} out={oh},{ow}", [t(1, h, w, 2)],
             lambda x, o=(oh, ow), a=align: nhwc(F.interpolate(nchw(x), o, mode="bilinear", align_corners=bool(a))))

# ---- reductions, shape
for shape, axes in [((3, 4), (0,)), ((3, 4), (1,)), ((2, 3, 4), (0, 2)), ((2, 3, 4, 5), (1, 2)), ((2, 3, 4, 5), (0, 1, 2)), ((7,), (0,)), ((2, 3, 4), (0, 1, 2)),
                    ((1, 5, 1), (1,)), ((2, 2, 2, 2, 2), (1, 3)), ((4, 33), (0,))]:
    mask = sum(1 << a for a in axes)
    for keep in (0, 1):
        case("sum", f"axes={mask} keepdim={keep}", [t(*shape)], lambda x, a=axes, k=keep: x.sum(a, keepdim=bool(k)))
        case("mean", f"axes={mask} keepdim={keep}", [t(*shape)], lambda x, a=axes, k=keep: x.mean(a, keepdim=bool(k)))
for a, b in [((3,), (2, 3)), ((1, 4), (3, 4)), ((2, 1, 3), (2, 5, 3)), ((1,), (2, 2, 2)), ((1, 1, 5), (3, 2, 5)), ((2, 3), (2, 3)), ((1, 1), (4, 3)), ((4, 1), (4, 6)),
             ((1, 2, 1, 2), (3, 2, 3, 2)), ((5,), (1, 5))]:
    case("broadcast", f"dim={pair(b)}", [t(*a)], lambda x, b=b: x.expand(b))
for a, b, shown in [((2, 6), (3, 4), "3,4"), ((2, 3, 4), (2, 12), "2,-1"), ((4,), (2, 2), "2,2"), ((1, 5), (5,), "5"), ((2, 3), (6, 1), "6,1"),
                    ((3, 2, 2), (3, 4), "3,4"), ((1, 2, 3, 4), (24,), "-1"), ((6,), (1, 2, 1, 3), "1,2,1,3"), ((5, 1, 7), (7, 5), "-1,5"), ((2, 17), (34, 1), "34,1")]:
    case("reshape", f"dim={shown}", [t(*a)], lambda x, b=b: x.reshape(b))
for shape, perm in [((2, 3), (1, 0)), ((2, 3, 4), (0, 2, 1)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4, 5), (0, 2, 1, 3)), ((2, 3, 4, 5), (0, 3, 1, 2)), ((2, 3, 4, 5), (3, 2, 1, 0)),
                    ((5,), (0,)), ((1, 4, 2), (1, 2, 0)), ((2, 1, 3, 2, 2), (0, 4, 2, 1, 3)), ((3, 3, 3), (1, 0, 2))]:
    case("transpose", f"perm={pair(perm)}", [t(*shape)], lambda x, p=perm: x.permute(p))
for shapes, axis in [(((2, 3), (2, 2)), 1), (((1, 3), (4, 3)), 0), (((2, 1, 3), (2, 4, 3), (2, 2, 3)), 1), (((3,), (2,)), 0), (((2, 2, 2, 3), (2, 2, 2, 1)), 3),
                     (((1, 1), (1, 1), (1, 1), (1, 1)), 1), (((2, 5, 3), (1, 5, 3)), 0), (((4, 17), (4, 16)), 1), (((2, 3, 1, 2), (2, 1, 1, 2)), 1), (((3, 2, 33), (3, 2, 1)), 2)]:
    case("concat", f"axis={axis}", [t(*s) for s in shapes], lambda *x, a=axis: torch.cat(x, a))
for shape, start, size, step in [((5,), (1,), (3,), (1,)), ((4, 6), (0, 1), (2, 3), (2, 2)), ((2, 8, 8, 3), (0, 0, 0, 0), (2, 4, 4, 3), (1, 2, 2, 1)), ((3, 4, 5), (1, 0, 2), (2, 4, 1), (1, 1, 1)),
                                 ((2, 7), (0, 6), (2, 1), (1, 3)),
                                 ((9,), (0,), (3,), (4,)), ((1, 5, 5, 17), (0, 1, 1, 0), (1, 2, 2, 17), (1, 2, 2, 1)), ((3, 3), (0, 0), (3, 3), (1, 1)), ((2, 3, 33), (0, 0, 1), (2, 3, 16), (1, 1, 2)),
                                 ((4, 1, 6), (3, 0, 5), (1, 1, 1), (1, 1, 1))]:
    def sl(x, st=start, sz=size, sp=step):
        return x[tuple(slice(a, a + (n - 1) * p + 1, p) for a, n, p in zip(st, sz, sp))]
    case("slice", f"start={pair(start)} size={pair(size)} step={pair(step)}", [t(*shape)], sl)
for shape, before, after, value in [((3,), (1,), (2,), 0.5), ((2, 3), (0, 1), (1, 0), 0), ((2, 2, 2, 4), (0, 0, 0, 2), (0, 0, 0, 2), 0), ((1, 3, 3, 2), (0, 1, 1, 0), (0, 2, 0, 0), -1), ((2, 2), (0, 0), (0, 0), 0),
                                    ((1, 4, 4, 3), (0, 2, 2, 0), (0, 2, 2, 0), 0), ((2, 17), (0, 0), (0, 15), 2), ((1,), (3,), (0,), 1), ((2, 3, 5), (1, 0, 0), (0, 0, 4), 0), ((3, 1), (2, 2), (2, 2), -0.5)]:
    flat = [v for a, b in reversed(list(zip(before, after))) for v in (a, b)]
    case("pad", f"before={pair(before)} after={pair(after)} value={value}", [t(*shape)], lambda x, f=flat, v=value: F.pad(x, f, value=v))

# ---- attention
for shape in [(3, 4), (1, 1), (2, 3, 5), (7, 17), (2, 2, 2, 9), (4, 33), (1, 10), (5, 2), (6, 16), (2, 64)]:
    case("softmax", "", [t(*shape) * 3], lambda x: x.softmax(-1))


def attention(q, k, v, heads, scale):
    n, sq, d = q.shape
    split = lambda x: x.reshape(n, x.shape[1], heads, d // heads).transpose(1, 2)
    a = split(q) @ split(k).mT * (scale or (d // heads) ** -0.5)
    return (a.softmax(-1) @ split(v)).transpose(1, 2).reshape(n, sq, d), a.logsumexp(-1)


for n, sq, sk, heads, d, scale in [(1, 1, 1, 1, 1, 0), (2, 5, 5, 2, 3, 0), (1, 7, 7, 3, 4, 0.3), (2, 3, 3, 1, 8, 0), (1, 17, 17, 2, 5, 0)]:
    case("attention", f"heads={heads} scale={scale}", [t(n, sq, 3 * heads * d)],
         lambda x, h=heads, s=scale: attention(*x.chunk(3, -1), h, s))
for n, sq, sk, heads, d, scale in [(1, 2, 3, 1, 4, 0), (2, 4, 4, 2, 3, 0), (1, 5, 9, 3, 2, 0.5), (2, 1, 6, 2, 5, 0), (1, 33, 17, 1, 16, 0)]:
    case("attention", f"heads={heads} scale={scale}", [t(n, sq, heads * d), t(n, sk, heads * d), t(n, sk, heads * d)],
         lambda q, k, v, h=heads, s=scale: attention(q, k, v, h, s))

# ---- losses. Row weights are ours: PyTorch's reduction='none', weighted and divided by the weights in use
for n, k, smooth, red, use_row, use_class in [(4, 3, 0, "mean", 0, 0), (5, 10, 0.1, "mean", 0, 0), (3, 7, 0, "sum", 0, 0), (6, 5, 0.2, "mean", 1, 0), (4, 4, 0, "mean", 0, 1),
                                              (5, 3, 0.1, "mean", 0, 1), (5, 6, 0.1, "mean", 1, 1), (2, 2, 0, "sum", 1, 1), (1, 17, 0.3, "mean", 0, 0), (7, 33, 0, "mean", 1, 0)]:
    y = torch.from_numpy(rng.integers(0, k, n))
    rw = torch.from_numpy(rng.integers(0, 3, n).astype(np.float64) / 2 + (np.arange(n) == 0)) if use_row else None
    cw = t(k).abs() + 0.1 if use_class else None

    def ce(x, label, r=None, c=None, smooth=smooth, red=red, y=y):
        row = F.cross_entropy(x, y, c, reduction="none", label_smoothing=smooth)
        r = torch.ones(len(y)) if r is None else r
        used = r if c is None else r * c[y]
        return (r * row).sum() / (used.sum() if red == "mean" else 1), row
    case("softmax_cross_entropy", f"smoothing={smooth} reduction={red}", [t(n, k) * 2, y.to(torch.int32), rw, cw], ce, grad=[0])
    soft = t(n, k).softmax(-1)

    def ces(x, p, r=None, c=None, smooth=smooth, red=red):
        row = F.cross_entropy(x, p, c, reduction="none", label_smoothing=smooth)
        r = torch.ones(len(p)) if r is None else r
        return (r * row).sum() / (r.sum() if red == "mean" else 1), row
    case("softmax_cross_entropy", f"smoothing={smooth} reduction={red}", [t(n, k), soft, rw, cw], ces, grad=[0])
    target = torch.from_numpy(rng.integers(0, 2, (n, k)).astype(np.float64))

    def bce(x, target, r=None, c=None, smooth=smooth, red=red):
        target = target * (1 - smooth) + smooth / 2
        row = F.binary_cross_entropy_with_logits(x, target, reduction="none", pos_weight=c)
        r = torch.ones(len(x)) if r is None else r
        return (r[:, None] * row).sum() / (r.sum() * x.shape[1] if red == "mean" else 1), row.mean(1)
    case("bce_with_logits", f"smoothing={smooth} reduction={red}", [t(n, k) * 3, target, rw, cw], bce, grad=[0])
    top = min(k, 1 + n % 3)
    w = torch.ones(n) if rw is None else rw
    case("topk_correct", f"k={top}", [t(n, k), y.to(torch.int32), rw], lambda x, label, r, top=top, y=y, w=w: ((x.topk(top).indices == y[:, None]).any(1) * w).sum(), grad=[])

# ---- augmentation: crops and cuts in numpy, by definition; colour by the formulas of torchvision.transforms.functional (adjust_brightness,
# adjust_contrast, adjust_saturation, adjust_hue on float tensors [...,3,h,w]), with luma of weights that sum to 1
TOP, LEFT, FLIP, CUT_TOP, CUT_LEFT, CUT_H, CUT_W, CUT_NOISE, VFLIP, BRIGHTNESS, CONTRAST, SATURATION, HUE, FIELDS = [*range(13), 16]


def blend(a, b, ratio):
    return (ratio * a + (1 - ratio) * b).clamp(0, 1)


def grey_of(x):
    return (0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2])[None] if len(x) == 3 else x.mean(0, keepdim=True)


def rgb_to_hsv(x):
    r, g, b = x.unbind(0)
    most, least = x.max(0).values, x.min(0).values
    same, cr = most == least, most - least
    ones = torch.ones_like(most)
    s = cr / torch.where(same, ones, most)
    divisor = torch.where(same, ones, cr)
    rc, gc, bc = (most - r) / divisor, (most - g) / divisor, (most - b) / divisor
    hr = (most == r) * (bc - gc)
    hg = ((most == g) & (most != r)) * (2 + rc - bc)
    hb = ((most != g) & (most != r)) * (4 + gc - rc)
    return torch.stack([torch.fmod((hr + hg + hb) / 6 + 1, 1), s, most])


def hsv_to_rgb(x):
    h, s, v = x.unbind(0)
    i = torch.floor(h * 6)
    f = h * 6 - i
    i = i.to(torch.int64) % 6
    p, q, t_ = (v * (1 - s)).clamp(0, 1), (v * (1 - s * f)).clamp(0, 1), (v * (1 - s * (1 - f))).clamp(0, 1)
    mask = i[None] == torch.arange(6).view(-1, 1, 1)
    sectors = torch.stack([torch.stack([v, q, p, p, t_, v]), torch.stack([t_, v, v, q, p, p]), torch.stack([p, p, t_, v, v, q])])
    return (mask[None] * sectors).sum(1)


def colour(x, brightness, contrast, saturation, hue):
    x = blend(x, torch.zeros_like(x), 1 + brightness)
    x = blend(x, grey_of(x).mean(), 1 + contrast)
    if len(x) != 3:
        return x
    x = blend(x, grey_of(x), 1 + saturation)
    h, s, v = rgb_to_hsv(x)
    return hsv_to_rgb(torch.stack([(h + hue) % 1, s, v])) if hue else x


def normal_noise(key, shape):
    e = np.arange(np.prod(shape), dtype=np.uint64)
    a, b = philox.philox4x32(key, philox.fold(e), 0 * e, 0 * e, 0 * e)[:2]
    unit = lambda w: (w.astype(np.float64) + 0.5) / 4294967296
    return (np.sqrt(-2 * np.log(unit(a))) * np.cos(2 * np.pi * unit(b))).reshape(shape)


def augment_one(image, record, mean, std, mode, out, p=3):
    top, left, flip, cut_top, cut_left, cut_h, cut_w, key, vflip = (int(v) for v in record[:9])
    padded = np.pad(image.astype(np.float64), ((p, p), (p, p), (0, 0)), mode="reflect" if mode == "reflect" else "constant")
    crop = padded[p + top:p + top + out[0], p + left:p + left + out[1]] / 255
    crop = crop[::-1 if vflip else 1, ::-1 if flip else 1]
    c = crop.shape[2]
    colours = c - 1 if c in (2, 4) else c
    x = torch.from_numpy(crop.copy())
    if any(record[BRIGHTNESS:HUE + 1]):
        x[..., :colours] = colour(x[..., :colours].permute(2, 0, 1), *record[BRIGHTNESS:HUE + 1].tolist()).permute(1, 2, 0)
    y = ((x - mean) / std).numpy()
    cut = (slice(max(cut_top, 0), max(cut_top + cut_h, 0)), slice(max(cut_left, 0), max(cut_left + cut_w, 0)))
    y[cut] = normal_noise(key, y.shape)[cut] if key else 0
    return y


def augment_case(mode, shape, out, colours):
    """colours: per picture, its four colour fields."""
    images = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    n, h, w, c = shape
    record = np.zeros((n, FIELDS))
    record[:, TOP] = rng.integers(-2, h - out[0] + 3, n)
    record[:, LEFT] = rng.integers(-2, w - out[1] + 3, n)
    record[:, FLIP] = np.arange(n) % 2
    record[:, CUT_TOP:CUT_H] = rng.integers(-1, 3, (n, 2))
    record[:, CUT_H:CUT_NOISE] = rng.integers(0, 4, (n, 2))
    mean, std = t(c).abs(), t(c).abs() + 0.2
    if colours:
        images[:, 0, :, :] = images[:, 0, :, :1]  # a row of grey pixels, which have no hue
        record[:, CUT_NOISE] = rng.integers(1, 1 << 24, n) * (np.arange(n) % 3 > 0)
        record[:, VFLIP] = np.arange(n) // 2 % 2
        record[:, BRIGHTNESS:HUE + 1] = colours

    def augment(images, record, mean, std):
        return torch.from_numpy(np.stack([augment_one(i, r, mean, std, mode, out) for i, r in zip(images.numpy(), record.numpy())]))
    case("augment", f"out={pair(out)} mode={mode}", [images, torch.from_numpy(record), mean, std], augment, grad=[])


for mode, shape, out in [("zero", (3, 6, 6, 3), (6, 6)), ("reflect", (3, 6, 5, 3), (6, 5)), ("zero", (2, 5, 5, 1), (4, 3)), ("reflect", (4, 8, 8, 4), (8, 8))]:
    augment_case(mode, shape, out, None)
colours = [(0.375, 0, 0, 0), (0, -0.5, 0, 0), (0, 0, 0.75, 0), (0, 0, 0, 0.25), (0, 0, 0, -0.4375), (-0.25, 0.5, -0.125, 0.0625), (0.5, 1, 1, -0.5), (-1, 0, 0, 0.25), (0, 0, -1, 0.125), (0, 0, 0, 0)]
for mode, shape, out in [("zero", (10, 6, 7, 3), (6, 7)), ("reflect", (10, 5, 5, 3), (4, 6)), ("zero", (10, 5, 6, 1), (5, 6)), ("reflect", (10, 5, 5, 4), (5, 5)),
                         ("zero", (10, 4, 4, 2), (4, 4)), ("zero", (10, 4, 5, 5), (4, 4))]:
    augment_case(mode, shape, out, colours)

save_file(tensors, sys.argv[1], {**meta, "cases": str(len(meta)), "torch": torch.__version__})
print(len(meta), "cases,", sum(v.nbytes for v in tensors.values()), "bytes")
