#!/usr/bin/env python3
"""Peer: speed and memory of PyTorch on the CPU, as lines of JSON.

    bench_torch.py --model resnet20 --mode train --batch 128                    one measurement in the mode of --how
    bench_torch.py --model resnet20 --mode infer --batch 64 --probe             one per mode, to see which is the fastest
    bench_torch.py --model resnet20 --mode train --batch 128 --how nhwc --serve a measurement per line on standard input

train: zero_grad, forward, cross-entropy, backward, step of SGD (Nesterov momentum 0.9, weight decay 5e-4 on weights of rank > 1).
infer: forward in evaluation mode under inference_mode. One synthetic batch, already float and normalised, is used for every step
(`fovea bench` starts each step from uint8 pixels). Modes (--how): nchw and nhwc, the memory layout of weights and activations, run
eagerly; nchw+compile and nhwc+compile through torch.compile. --precision bf16: under torch.autocast. img_s and ms_step are of the
median step, ms_p10 and ms_p90 its percentiles; rss_mb is the peak resident memory of the process, import_mb what of it was there
after importing torch.
"""
import argparse
import contextlib
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

import models


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="one of `fovea models`")
    parser.add_argument("--mode", choices=("train", "infer"), default="train")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--img-size", type=int, default=32)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--how", choices=("nchw", "nhwc", "nchw+compile", "nhwc+compile"), default="nhwc")
    parser.add_argument("--probe", action="store_true", help="measure the modes, one line each")
    parser.add_argument("--compile", action="store_true", help="--probe: the compiled modes, too, after the eager ones")
    parser.add_argument("--serve", action="store_true", help="say 'ready', then measure once per line read")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--warmup", type=int, default=3, help="steps that are not measured")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def autocast(args):
    return torch.autocast("cpu", dtype=torch.bfloat16) if args.precision == "bf16" else contextlib.nullcontext()


def make_step(args, how, classes):
    layout = torch.channels_last if how.startswith("nhwc") else torch.contiguous_format
    net = models.build(args.model, classes, 3, args.img_size).to(memory_format=layout)
    x = torch.randn(args.batch, 3, args.img_size, args.img_size).contiguous(memory_format=layout)
    y = torch.randint(0, classes, (args.batch,))
    call = torch.compile(net) if how.endswith("+compile") else net
    if args.mode == "infer":
        net.eval()

        def infer():
            with torch.inference_mode(), autocast(args):
                call(x)
        return infer

    net.train()
    groups = [{"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 5e-4},
              {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)

    def train():
        optimizer.zero_grad(set_to_none=True)
        with autocast(args):
            loss = F.cross_entropy(call(x), y)
        loss.backward()
        optimizer.step()
    return train


def peak_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(args, how, step, import_mb):
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < args.seconds:
        before = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - before))
    times.sort()
    n = len(times)
    print(json.dumps({
        "model": args.model, "mode": args.mode, "batch": args.batch, "how": how, "precision": args.precision,
        "threads": args.threads, "img_s": round(1e3 * args.batch / times[n // 2], 2), "ms_step": round(times[n // 2], 4),
        "ms_p10": round(times[n // 10], 4), "ms_p90": round(times[n * 9 // 10], 4), "steps": n,
        "rss_mb": peak_mb(), "import_mb": import_mb, "torch": torch.__version__}), flush=True)


def prepare(args, how, classes):
    step = make_step(args, how, classes)
    for _ in range(args.warmup):
        step()
    return step


def probe(args, classes, import_mb):
    hows = ["nhwc", "nchw"] + (["nhwc+compile", "nchw+compile"] if args.compile else [])
    for how in hows:
        try:
            measure(args, how, prepare(args, how, classes), import_mb)
        except Exception as error:  # a mode that does not work is no peer; the others are
            print(f"bench_torch: {args.model}, {how}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        torch._dynamo.reset()


def main():
    args, import_mb = parse(), peak_mb()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    classes = 10 if args.img_size <= 64 else 1000
    if args.probe:
        probe(args, classes, import_mb)
        return
    step = prepare(args, args.how, classes)
    if not args.serve:
        measure(args, args.how, step, import_mb)
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        measure(args, args.how, step, import_mb)


if __name__ == "__main__":
    main()
