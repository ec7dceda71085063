#!/usr/bin/env python3
"""Twelve training steps of a small network in float64 by PyTorch, with the recipes of the CIFAR-10 speed runs.

    make_optim_vectors.py tests/vectors/optim.safetensors

sgd: groups with their own learning rate and weight decay, Nesterov momentum, the summed loss with label smoothing, a
learning rate that rises and falls in straight lines, lookahead over parameters and running statistics.
muon: filters by Muon as in airbench94_muon, the rest by SGD. tests/test_optim_recipe.c
does the same steps. Names: start.*, batches.*, <recipe>.* (the state after the last step) and <recipe>.loss (means)."""
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

STEPS, BATCHES, BATCH, CLASSES = 12, 3, 6, 5
torch.set_default_dtype(torch.float64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6, CLASSES, bias=False)

    def forward(self, x):
        x = nn.functional.gelu(self.norm(self.stem(x)))
        return self.head(nn.functional.gelu(self.body(x)).mean((2, 3)))


def triangle(step):
    return float(np.interp(step, [0, int(0.23 * STEPS), STEPS], [0.2, 1, 0.07]))


class Lookahead:
    def __init__(self, net):
        self.slow = {k: v.clone() for k, v in net.state_dict().items()}

    def update(self, net, decay):
        for name, fast in net.state_dict().items():
            if fast.dtype == torch.float64:
                self.slow[name].lerp_(fast, 1 - decay)
                fast.copy_(self.slow[name])


def train(net, images, labels, optimizers, rates, until, lookahead):
    """rates(step): one factor for each param group of all optimizers; until: steps in which the stem's bias is trained."""
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.2, reduction="none")
    initial = [[g["lr"] for g in o.param_groups] for o in optimizers]
    slow = Lookahead(net) if lookahead else None
    losses = []
    for step in range(STEPS):
        net.stem.bias.requires_grad = step < until
        for o, lrs in zip(optimizers, initial):
            for group, lr in zip(o.param_groups, lrs):
                group["lr"] = lr * rates(step)
        loss = loss_of(net(images[step % BATCHES]), labels[step % BATCHES]).sum()
        losses.append(loss.item() / BATCH)
        for o in optimizers:
            o.zero_grad(set_to_none=True)
        loss.backward()
        for o in optimizers:
            o.step()
        done = step + 1
        if slow and done % 5 == 0:
            slow.update(net, 0.95**5 * (done / STEPS) ** 3)
        if slow and done == STEPS:
            slow.update(net, 1.0)
    return losses


def sgd(net):
    lr, wd = 0.02, 0.01
    groups = [dict(params=net.norm.parameters(), lr=8 * lr, weight_decay=wd / 8),
              dict(params=[net.stem.weight, net.stem.bias, net.body.weight, net.head.weight], lr=lr, weight_decay=wd)]
    return [torch.optim.SGD(groups, momentum=0.85, nesterov=True)]


class Muon(torch.optim.Optimizer):
    """As Jordan's of 2024, but not rounded to bfloat16."""

    def __init__(self, params, lr, momentum, steps):
        super().__init__(params, dict(lr=lr, momentum=momentum, steps=steps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                g = p.grad.add(buffer, alpha=group["momentum"]).reshape(len(p), -1)
                p.mul_(len(p) ** 0.5 / p.norm())
                x = g / (g.norm() + 1e-7)
                if len(x) > x.shape[1]:
                    x = x.T
                for _ in range(group["steps"]):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                if len(g) > g.shape[1]:
                    x = x.T
                p.add_(x.reshape(p.shape), alpha=-group["lr"])


def muon(net):
    wd = 0.01
    rest = [dict(params=[net.stem.bias, *net.norm.parameters()], lr=0.053, weight_decay=wd / 0.053),
            dict(params=[net.head.weight], lr=0.067, weight_decay=wd / 0.067)]
    return [torch.optim.SGD(rest, momentum=0.85, nesterov=True), Muon([net.stem.weight, net.body.weight], 0.24, 0.6, 3)]


def main():
    torch.manual_seed(3)
    out = {}
    images, labels = torch.randn(BATCHES, BATCH, 3, 4, 4), torch.randint(CLASSES, (BATCHES, BATCH))
    out["batches.images"] = images.permute(0, 1, 3, 4, 2).contiguous().numpy()
    out["batches.labels"] = labels.numpy().astype(np.int64)
    start = {k: v.clone() for k, v in Net().state_dict().items() if v.dtype == torch.float64}
    out.update({f"start.{k}": v.numpy() for k, v in start.items()})

    def record(name, make, rates, until, lookahead):
        net = Net()
        net.load_state_dict(start, strict=False)
        out[f"{name}.loss"] = np.array(train(net, images, labels, make(net), rates, until, lookahead))
        for k, v in net.state_dict().items():
            if v.dtype == torch.float64:
                out[f"{name}.{k}"] = v.detach().numpy().copy()

    record("sgd", sgd, triangle, 7, True)
    record("muon", muon, lambda step: 1 - step / STEPS, STEPS, False)
    save_file(out, sys.argv[1])


if __name__ == "__main__":
    main()
