#!/usr/bin/env python3
"""Peer: the CIFAR-10 speed run in PyTorch, as published (Jordan 2024, arXiv:2404.00498, airbench94). One JSON line per run, then the means.

    train_torch_speedrun.py --data DIR                              on a GPU: float16, after a run that is not counted
    train_torch_speedrun.py --data DIR --compile --runs 50          the same with torch.compile, which takes minutes at first
    train_torch_speedrun.py --data DIR --device cpu --images 2048 --epochs 3 --batch 128    does it work? float32

DIR has data_batch_1.bin ... 5.bin and test_batch.bin. A run line has run, accuracy (%, six views), seconds, loss (per picture, mean of
the last steps, as many as an epoch has) and first_loss (of the first step); the last line has runs, and mean and standard deviation of accuracy and seconds.
Exit code 78: the budget was too small for a run.
seconds: whitening, augmentation, training and the final test, the device synchronised before and after; not counted are loading (to the
device, as float16 or float32), initial weights, compiling and the warm-up, which is a whole run with random labels.

Network: models.py, weights in float16, norms in float32, channels last. The first layer whitens 2x2 patches of the first 5,000 training
pictures and is frozen; its bias is trained for 3 epochs. Recipe: all 50,000 training pictures, last incomplete batch dropped; batch
1024; 9.9 epochs; SGD with Nesterov momentum 0.85, lr 11.5 and weight decay 0.0153 per 1,024 pictures, decoupled, biases of norms 64
times as fast with the same decay; lr from 0.2 to 1 over 23 % of the steps, then down to 0.07, in straight lines; cross-entropy, label
smoothing 0.2, summed; lookahead every 5 steps with decay 0.95^5 (t / T)^3, at the end the slow copy. Pictures: normalised, half of them
flipped once and all of them in every second epoch, padded by 2 reflected pixels and cut out at random. Test: picture and mirror image
1/4 each, both moved by one pixel up left and down right 1/8 each.

The same with Fovea: fovea train --recipe cifar10-94 --seed SEED
"""
import argparse
import json
import math
import statistics
import sys
import time

STARTED = time.monotonic()  # importing torch is part of the budget

import numpy as np
import torch
import torch.nn.functional as F

import models

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, DECAY, MOMENTUM, BIAS_SCALE = 11.5, 0.0153, 0.85, 64.0
PER_PICTURE = 1024 * (1 + 1 / (1 - MOMENTUM))  # rates are given per 1,024 pictures, freed of the size of momentum
WHITEN_PICTURES, WHITEN_BIAS_EPOCHS = 5000, 3
SMOOTHING, PAD, LOOKAHEAD_STEPS, TEST_BATCH = 0.2, 2, 5, 2000


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with CIFAR-10's .bin files")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next has the next one")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds in all: no run is begun that would not end within them")
    parser.add_argument("--compile", action="store_true", help="torch.compile, mode max-autotune")
    parser.add_argument("--images", type=int, help="only the first N training and the first N test pictures")
    return parser.parse_args()


def load(folder, files, count, device, dtype):
    """Pictures [n,3,32,32] in 0..1 and labels [n], on the device."""
    raw = np.concatenate([np.fromfile(f"{folder}/{f}", np.uint8).reshape(-1, 3073) for f in files])[:count]
    x = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy()).to(device)
    return x.to(dtype).div_(255).contiguous(memory_format=torch.channels_last), torch.from_numpy(raw[:, 0].astype(np.int64)).to(device)


def normalise(x):
    mean, std = (torch.tensor(v, device=x.device, dtype=x.dtype).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def random_crop(padded, size):
    """Each picture of [n,3,h,w] cut out at a place of its own, channels last: one gather."""
    n, places = len(padded), padded.shape[-1] - size + 1
    top, left = torch.randint(places, (2, n, 1), device=padded.device)
    inside = torch.arange(size, device=padded.device)
    rows, columns = (top + inside)[:, :, None], (left + inside)[:, None, :]
    return padded.permute(0, 2, 3, 1)[torch.arange(n, device=padded.device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


class Pictures:
    """The training set, augmented anew, as a whole, in each epoch."""

    def __init__(self, x, labels, batch):
        x = normalise(x)
        flipped = torch.rand(len(x), device=x.device) < 0.5
        x = torch.where(flipped.view(-1, 1, 1, 1), x.flip(-1), x)
        self.padded, self.labels, self.batch = F.pad(x, (PAD,) * 4, "reflect"), labels, batch

    def batches(self, epoch):
        x = random_crop(self.padded, self.padded.shape[-1] - 2 * PAD)
        if epoch % 2 == 1:
            x = x.flip(-1)
        order = torch.randperm(len(x), device=x.device)
        for i in range(len(x) // self.batch):
            index = order[i * self.batch:(i + 1) * self.batch]
            yield x[index], self.labels[index]


class Lookahead:
    """A slow copy of weights and running statistics, which the net goes on from."""

    def __init__(self, net):
        self.fast = [t for t in net.state_dict().values() if t.is_floating_point()]
        self.slow = [t.clone() for t in self.fast]

    def step(self, keep):
        for slow, fast in zip(self.slow, self.fast):
            slow.lerp_(fast, 1 - keep)
            fast.copy_(slow)


def make_optimizer(net, batch):
    lr, decay = LR / PER_PICTURE, DECAY * batch / PER_PICTURE
    named = list(net.named_parameters())
    shifts = [p for n, p in named if "norm" in n]
    rest = [p for n, p in named if "norm" not in n and p.requires_grad]
    return torch.optim.SGD([dict(params=shifts, lr=lr * BIAS_SCALE, weight_decay=decay / (lr * BIAS_SCALE)),
                            dict(params=rest, lr=lr, weight_decay=decay / lr)], lr=lr, momentum=MOMENTUM, nesterov=True)


def triangle(step, total):
    """Share of the peak learning rate: 0.2 -> 1 -> 0.07."""
    peak = int(0.23 * total)
    return 0.2 + 0.8 * step / peak if step < peak else 1 - 0.93 * (step - peak) / (total - peak)


@torch.no_grad()
def six_views(call, x):
    """Logits [n,10] of normalised pictures."""
    moved = F.pad(x, (1, 1, 1, 1), "reflect")
    size = x.shape[-1]
    views = ((x, 0.25), (moved[:, :, :size, :size], 0.125), (moved[:, :, 2:, 2:], 0.125))
    return sum(weight * call(v) for view, weight in views for v in (view, view.flip(-1)))


def train(net, call, train_set, test_set, args):
    """One run from the net's present weights: accuracy in %, loss of the first step and of the last epoch. `call`: the net, compiled or not."""
    x, labels = train_set
    total = math.ceil(len(x) // args.batch * args.epochs)
    net.whiten.bias.requires_grad = True
    optimizer, lookahead, done = make_optimizer(net, args.batch), Lookahead(net), 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: triangle(step, total))
    net.set_whitening(normalise(x[:WHITEN_PICTURES]))
    pictures, losses = Pictures(x, labels, args.batch), []
    net.train()
    for epoch in range(math.ceil(args.epochs)):
        net.whiten.bias.requires_grad = epoch < WHITEN_BIAS_EPOCHS
        for inputs, targets in pictures.batches(epoch):
            loss = F.cross_entropy(call(inputs), targets, label_smoothing=SMOOTHING, reduction="none").sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            done += 1
            if done % LOOKAHEAD_STEPS == 0:
                lookahead.step(0.95 ** 5 * (done / total) ** 3)
            if done == total:
                break
    lookahead.step(1.0)
    net.eval()
    x, labels = test_set
    right = torch.cat([six_views(call, batch) for batch in normalise(x).split(TEST_BATCH)]).argmax(1) == labels
    last = torch.stack(losses[-min(len(losses), len(train_set[0]) // args.batch):]).float().mean()
    return 100 * right.float().mean().item(), losses[0].item() / args.batch, last.item() / args.batch


def make_net(device, dtype):
    net = models.build("speedrun94").to(device, dtype, memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, models.SpeedrunNorm):
            module.float()
    return net


def main():
    args = parse()
    on_gpu = args.device.startswith("cuda")
    dtype = torch.float16 if on_gpu else torch.float32
    torch.backends.cudnn.benchmark = True
    synchronize = torch.cuda.synchronize if on_gpu else lambda: None
    train_set = load(args.data, [f"data_batch_{i}.bin" for i in range(1, 6)], args.images, args.device, dtype)
    test_set = load(args.data, ["test_batch.bin"], args.images, args.device, dtype)
    net = make_net(args.device, dtype)
    call = torch.compile(net, mode="max-autotune") if args.compile else net

    def timed(seed, labels):
        torch.manual_seed(seed)
        net.load_state_dict(make_net(args.device, dtype).state_dict())  # in place: what has been compiled stays
        synchronize()
        start = time.perf_counter()
        result = train(net, call, (train_set[0], labels), test_set, args)
        synchronize()
        return *result, time.perf_counter() - start

    longest = 0.0
    if on_gpu or args.compile:
        seconds = timed(args.seed, torch.randint(10, train_set[1].shape, device=args.device))[-1]
        longest = 0.0 if args.compile else seconds
    accuracies, times = [], []
    for run in range(args.runs):
        if time.monotonic() - STARTED + longest > args.budget:
            break
        accuracy, first, last, seconds = timed(args.seed + run, train_set[1])
        accuracies.append(accuracy)
        times.append(seconds)
        longest = max(times)
        print(json.dumps(dict(run=run, accuracy=round(accuracy, 3), seconds=round(seconds, 4), loss=round(last, 4), first_loss=round(first, 4))),
              flush=True)
    if not times:
        print("no time for a run", file=sys.stderr)
        return 78
    spread = statistics.stdev if len(times) > 1 else lambda values: 0.0
    print(json.dumps(dict(runs=len(times), accuracy_mean=round(statistics.mean(accuracies), 3), accuracy_std=round(spread(accuracies), 3),
                          seconds_mean=round(statistics.mean(times), 4), seconds_std=round(spread(times), 4),
                          device=torch.cuda.get_device_name() if on_gpu else args.device, precision=str(dtype)[6:],
                          compiled=args.compile, torch=torch.__version__)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
