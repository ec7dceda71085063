#!/usr/bin/env python3
"""Frozen vectors of whole models, trained for ten steps by PyTorch (timm) in float64: tests/vectors/models.safetensors.

usage: make_model_vectors.py OUT

Weights, pictures and labels come from Philox formulas (philox.py) that tests/test_parity_models.c repeats, so no weights are stored:
per model its logits and loss of step 1, the losses of ten steps, and per tensor the norm and 16 random-sign projections of the
gradient of step 1 and of (value after ten steps - initial value).
"""
import sys

import numpy as np
import timm
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn

import models
from philox import U64, fold, hash_name, philox4x32, uniform

SEED, STEPS = 7, 10


class Block(nn.Module):
    """He et al. CIFAR block, option A: stride-2 slice, zero channels."""
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.stride, self.more = stride, o - i

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(y + x)


class ResNet20(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        make = lambda i, o, s: nn.Sequential(Block(i, o, s), Block(o, o, 1), Block(o, o, 1))
        self.layer1, self.layer2, self.layer3 = make(16, 16, 1), make(16, 32, 2), make(32, 64, 2)
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def initial(name, shape):
    u = uniform(SEED, name, int(np.prod(shape)) if shape else 1)
    if name.endswith("bias"):
        v = 0.2 * (u - 0.5)
    elif name in ("cls_token", "pos_embed"):
        v = (2 * u - 1) * 0.035
    elif len(shape) == 1:
        v = (0.1 if ".bn3." in name else 1) * (1 + 0.2 * (u - 0.5))  # quiet branches: else float32 itself drifts by 15% in resnet50
    else:
        v = (2 * u - 1) * np.sqrt((6.0 if len(shape) == 4 else 3.0) / np.prod(shape[1:]))
    return torch.from_numpy(v.astype(np.float32).astype(np.float64).reshape(shape))


def signs(name, count):
    e = np.arange(count, dtype=U64)
    word = philox4x32(SEED, fold(e), np.zeros(count, U64), np.zeros(count, U64), np.full(count, hash_name(name), U64))[1].astype(np.uint32)
    return [((word >> np.uint32(j)) & np.uint32(1)).astype(np.float64) * 2 - 1 for j in range(16)]


def summary(name, value):
    v = value.detach().double().numpy().ravel()
    return np.linalg.norm(v), np.array([np.dot(s, v) for s in signs(name, v.size)])


def run(name, net, size, batch, classes, opt_kind, lr, tensors, meta):
    net = net.double().train()
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(initial(key, tuple(p.shape)))
    start = {k: v.clone() for k, v in net.state_dict().items() if v.is_floating_point()}
    no_decay = lambda k, p: p.ndim <= 1 or k in ("cls_token", "pos_embed")
    trained = [(k, p) for k, p in net.named_parameters() if p.requires_grad]
    groups = [{"params": [p for k, p in trained if not no_decay(k, p)], "weight_decay": 5e-4},
              {"params": [p for k, p in trained if no_decay(k, p)], "weight_decay": 0.0}]
    opt = (torch.optim.SGD(groups, lr=lr, momentum=0.9) if opt_kind == "sgd" else torch.optim.AdamW(groups, lr=lr, eps=1e-3))
    losses = []
    for step in range(STEPS):
        x = (2 * uniform(SEED, "input", batch * size * size * 3, step) - 1) * 1.7
        x = torch.from_numpy(x.astype(np.float32).astype(np.float64).reshape(batch, size, size, 3)).permute(0, 3, 1, 2)
        y = torch.from_numpy((uniform(SEED, "labels", batch, step) * classes).astype(np.int64))
        logits = net(x)
        loss = F.cross_entropy(logits, y)
        opt.zero_grad()
        loss.backward()
        if step == 0:
            tensors[f"{name}.logits"] = logits.detach().numpy().copy()
            pairs = [summary(k, p.grad) for k, p in trained]
            tensors[f"{name}.grad_norm"] = np.array([a for a, _ in pairs])
            tensors[f"{name}.grad_proj"] = np.stack([b for _, b in pairs])
            meta[f"{name}.parameters"] = "\n".join(k for k, _ in trained)
        opt.step()
        losses.append(loss.item())
    tensors[f"{name}.losses"] = np.array(losses)
    pairs = [summary(k, v - start[k]) for k, v in net.state_dict().items() if v.is_floating_point()]
    tensors[f"{name}.delta_norm"] = np.array([a for a, _ in pairs])
    tensors[f"{name}.delta_proj"] = np.stack([b for _, b in pairs])
    meta[f"{name}.state"] = "\n".join(k for k, v in net.state_dict().items() if v.is_floating_point())
    meta[f"{name}.setup"] = f"{size} {batch} {classes} {opt_kind} {lr}"
    print(name, [round(v, 4) for v in losses], flush=True)


def main():
    torch.manual_seed(0)
    tensors, meta = {}, {"torch": torch.__version__, "timm": timm.__version__}
    run("resnet20", ResNet20(10), 32, 8, 10, "sgd", 0.005, tensors, meta)
    run("resnet18", timm.create_model("resnet18", num_classes=100), 64, 4, 100, "sgd", 0.0005, tensors, meta)
    run("resnet50", timm.create_model("resnet50", num_classes=100), 64, 4, 100, "sgd", 0.0005, tensors, meta)
    run("vit_tiny_patch16_224", timm.create_model("vit_tiny_patch16_224", num_classes=100), 224, 1, 100, "adamw", 1e-4, tensors, meta)
    run("speedrun94", models.build("speedrun94"), 32, 4, 10, "sgd", 0.005, tensors, meta)
    run("speedrun96", models.build("speedrun96"), 32, 4, 10, "sgd", 0.005, tensors, meta)
    save_file(tensors, sys.argv[1], meta)


if __name__ == "__main__":
    main()
