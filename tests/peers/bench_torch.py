#!/usr/bin/env python3
"""Peer: speed and memory of PyTorch on the CPU, one measurement per process, one JSON line.

    bench_torch.py --model resnet20 --mode train --batch 128 --layout nhwc --seconds 6 --threads 2

train: zero_grad, forward, cross-entropy, backward, step of SGD (Nesterov momentum 0.9, weight decay 5e-4 on weights of rank > 1).
infer: forward in evaluation mode under inference_mode. Float32; one synthetic batch, already float and normalised, is used for every
step (`fovea bench` starts each step from uint8 pixels). img_s and ms_step are of the median step after a warm-up; rss_mb is the peak
resident memory of the process, import_mb what of it was there after importing torch.
"""
import argparse
import json
import resource
import statistics
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
    parser.add_argument("--layout", choices=("nchw", "nhwc"), default="nhwc", help="memory format of weights and activations")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--warmup", type=int, default=3, help="steps that are not measured")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def make_step(args, classes):
    layout = torch.channels_last if args.layout == "nhwc" else torch.contiguous_format
    net = models.build(args.model, classes, 3, args.img_size).to(memory_format=layout)
    x = torch.randn(args.batch, 3, args.img_size, args.img_size).contiguous(memory_format=layout)
    y = torch.randint(0, classes, (args.batch,))
    if args.mode == "infer":
        net.eval()

        def infer():
            with torch.inference_mode():
                net(x)
        return infer

    net.train()
    groups = [{"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 5e-4},
              {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)

    def train():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    return train


def peak_mb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def main():
    args, import_mb = parse(), peak_mb()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    step = make_step(args, 10 if args.img_size <= 64 else 1000)
    for _ in range(args.warmup):
        step()
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < args.seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    median = statistics.median(times)
    print(json.dumps({
        "model": args.model, "mode": args.mode, "batch": args.batch, "layout": args.layout, "threads": args.threads,
        "img_s": round(args.batch / median, 2), "ms_step": round(1e3 * median, 3), "steps": len(times),
        "rss_mb": peak_mb(), "import_mb": import_mb, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
