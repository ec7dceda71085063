#!/usr/bin/env python3
"""Peer: speed of ONNX Runtime and OpenVINO on the CPU, inference of a model that PyTorch exported, as lines of JSON.

    bench_onnx.py --export FILE.onnx --model resnet20 --batch 64    build the reference model and export it (needs torch, onnx)
    bench_onnx.py --probe --onnx FILE.onnx --batch 64               measure each engine that is installed
    bench_onnx.py --serve --engine openvino --onnx FILE.onnx --batch 64     a measurement per line on standard input

Shapes are static, input is float32 NCHW, threads are given. --precision bf16: OpenVINO's hint; ONNX Runtime has none.
"""
import argparse
import json
import resource
import sys
import time

import numpy as np

ENGINES = ("onnxruntime", "openvino")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", metavar="FILE")
    parser.add_argument("--onnx", metavar="FILE")
    parser.add_argument("--model")
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--engine", choices=ENGINES, default="onnxruntime")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--img-size", type=int, default=32)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--warmup", type=int, default=3, help="runs that are not measured")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def export(args):
    import torch

    import models
    net = models.build(args.model, 10 if args.img_size <= 64 else 1000, 3, args.img_size).eval()
    x = torch.randn(args.batch, 3, args.img_size, args.img_size)
    torch.onnx.export(net, (x,), args.export, dynamo=False, input_names=["x"], output_names=["logits"])


def onnxruntime_run(args, x):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = args.threads, 1
    session = onnxruntime.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
    return (lambda: session.run(None, {"x": x})), "ONNX Runtime " + onnxruntime.__version__


def openvino_run(args, x):
    import openvino
    hints = {"INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
             "INFERENCE_PRECISION_HINT": "bf16" if args.precision == "bf16" else "f32"}
    request = openvino.Core().compile_model(args.onnx, "CPU", hints).create_infer_request()
    tensor = openvino.Tensor(x, shared_memory=True)
    return (lambda: request.infer([tensor], share_outputs=True)), "OpenVINO " + openvino.__version__.split("-")[0]


def prepare(args, engine):
    if engine == "onnxruntime" and args.precision == "bf16":
        raise RuntimeError("no bf16 on the CPU")
    x = np.random.default_rng(0).standard_normal((args.batch, 3, args.img_size, args.img_size), dtype=np.float32)
    run, version = (onnxruntime_run if engine == "onnxruntime" else openvino_run)(args, x)
    for _ in range(args.warmup):
        run()
    return run, version


def measure(args, engine, run, version):
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < args.seconds:
        before = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - before))
    times.sort()
    n = len(times)
    print(json.dumps({
        "engine": engine, "how": version, "batch": args.batch, "img_s": round(1e3 * args.batch / times[n // 2], 2),
        "ms_step": round(times[n // 2], 4), "ms_p10": round(times[n // 10], 4), "ms_p90": round(times[n * 9 // 10], 4),
        "steps": n, "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}), flush=True)


def main():
    args = parse()
    if args.export:
        export(args)
    elif args.probe:
        for engine in ENGINES:
            try:
                measure(args, engine, *prepare(args, engine))
            except Exception as error:  # an engine that is not there or does not work is no peer; the other may be
                print(f"bench_onnx: {engine}: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
    else:
        run, version = prepare(args, args.engine)
        print("ready", flush=True)
        for _ in sys.stdin:
            measure(args, args.engine, run, version)


if __name__ == "__main__":
    main()
