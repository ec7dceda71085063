"""Fovea's models as PyTorch modules with the same parameter names: for files that PyTorch is to load, and for bench_torch.py.

    import models
    net = models.load("runs/train/weights/best")        # strict: every tensor of the file is used, and none is missing

timm builds what it has (resnet18, resnet50, vit_tiny_patch16_224 ...); what it lacks is made here.
"""
import json
import os
import re

import torch
import torch.nn.functional as F
from torch import nn


class CifarBlock(nn.Module):
    """Basic block of He et al. 2015, section 4.2; option A: every second pixel, new channels zero. B: 1x1 convolution."""

    def __init__(self, channels, out, stride, projection):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.stride, self.more = stride, out - channels
        self.shortcut = nn.Sequential()
        if projection and (stride != 1 or self.more):
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if len(self.shortcut):
            x = self.shortcut(x)
        elif self.stride != 1 or self.more:
            x = F.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """Depth 6n + 2, three stages of n blocks with 16, 32 and 64 channels."""

    def __init__(self, depth, projection=False, num_classes=10, in_chans=3):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, channels = (depth - 2) // 6, 16
        for stage in range(3):
            out, layers = 16 << stage, []
            for i in range(blocks):
                layers.append(CifarBlock(channels, out, 2 if stage and i == 0 else 1, projection))
                channels = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class LeNet5(nn.Module):
    def __init__(self, num_classes=10, in_chans=1, img_size=28):
        super().__init__()
        pad = 2 if img_size < 32 else 0
        side = ((img_size + 2 * pad - 4) // 2 - 4) // 2
        self.conv1, self.conv2 = nn.Conv2d(in_chans, 6, 5, padding=pad), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * side * side, 120), nn.Linear(120, 84), nn.Linear(84, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class MLP(nn.Module):
    def __init__(self, hidden, num_classes=10, in_chans=1, img_size=28):
        super().__init__()
        width = in_chans * img_size * img_size
        for i, out in enumerate(hidden):
            setattr(self, f"fc{i + 1}", nn.Linear(width, out))
            width = out
        self.layers, self.head = len(hidden), nn.Linear(width, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        for i in range(self.layers):
            x = F.relu(getattr(self, f"fc{i + 1}")(x))
        return self.head(x)


class SpeedrunNorm(nn.Module):
    """Batch norm without a trained scale: it is 1, and given, for PyTorch's kernels for float16 want weight and bias, or none."""

    def __init__(self, channels, momentum):
        super().__init__()
        self.bias, self.momentum = nn.Parameter(torch.zeros(channels)), momentum
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.register_buffer("scale", torch.ones(channels), persistent=False)

    def forward(self, x):
        if self.training:
            self.num_batches_tracked += 1
        return F.batch_norm(x, self.running_mean, self.running_var, self.scale, self.bias, self.training, self.momentum, 1e-12)


class SpeedrunGroup(nn.Module):
    def __init__(self, channels, out, convs, momentum):
        super().__init__()
        for i in range(convs):
            setattr(self, f"conv{i + 1}", nn.Conv2d(channels if i == 0 else out, out, 3, padding=1, bias=False))
            setattr(self, f"norm{i + 1}", SpeedrunNorm(out, momentum))
        self.convs = convs

    def forward(self, x):
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        y = self.norm2(self.conv2(x))
        return F.gelu(y if self.convs == 2 else x + self.norm3(self.conv3(F.gelu(y))))


class Speedrun(nn.Module):
    """The CIFAR-10 networks of Jordan 2024 (arXiv:2404.00498), with the same initial values; those of the whitening come from the
    pictures (set_whitening)."""

    def __init__(self, widths, convs, momentum, num_classes=10, in_chans=3):
        super().__init__()
        self.whiten = nn.Conv2d(in_chans, 8 * in_chans, 2)
        self.whiten.weight.requires_grad = False
        nn.init.zeros_(self.whiten.bias)
        channels = 8 * in_chans
        for i, out in enumerate(widths):
            setattr(self, f"group{i + 1}", SpeedrunGroup(channels, out, convs, momentum))
            channels = out
        self.head = nn.Linear(channels, num_classes, bias=False)
        for m in self.modules():
            if isinstance(m, nn.Conv2d) and m is not self.whiten:
                nn.init.dirac_(m.weight.data[:m.in_channels])

    @torch.no_grad()
    def set_whitening(self, x, eps=5e-4):
        """From normalised pictures [n,c,h,w]."""
        patches = F.unfold(x.double(), 2).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / torch.sqrt(values + eps)).T.flip(0).reshape(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, x):
        x = self.group3(self.group2(self.group1(F.gelu(self.whiten(x)))))
        return self.head(F.max_pool2d(x, x.shape[2:]).flatten(1)) / 9


def _resnet_small_stem(name, num_classes, in_chans):
    """timm's ResNet with a 3x3 stem of stride 1 and no pooling, for 32-pixel pictures."""
    import timm
    net = timm.create_model(name, num_classes=num_classes, in_chans=in_chans)
    net.conv1, net.maxpool = nn.Conv2d(in_chans, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


def _vit(name, num_classes, in_chans, img_size):
    """vit_tiny_patch4_32 and its kin; None if the name is none of them."""
    m = re.fullmatch(r"vit_(tiny|small|base)_patch(\d+)_(\d+)(_d\d+)?((?:_avg|_sincos|_ls)*)", name)
    if not m:
        return None
    import timm
    dim, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[m[1]]
    avg = "_avg" in m[5]
    return timm.models.vision_transformer.VisionTransformer(
        img_size=img_size or int(m[3]), patch_size=int(m[2]), in_chans=in_chans, num_classes=num_classes, embed_dim=dim,
        depth=int(m[4][2:]) if m[4] else 12, num_heads=heads, class_token=not avg, global_pool="avg" if avg else "token",
        init_values=1e-5 if "_ls" in m[5] else None)


def build(name, num_classes=10, in_chans=3, img_size=None):
    """The module of one of Fovea's models; `fovea models` lists their names."""
    m = re.fullmatch(r"resnet(20|32|44|56|110)(_b)?", name)
    if m:
        return CifarResNet(int(m[1]), bool(m[2]), num_classes, in_chans)
    if name == "lenet5":
        return LeNet5(num_classes, in_chans, img_size or 28)
    if name in ("mlp", "mlp_500"):
        return MLP((512, 256) if name == "mlp" else (500,), num_classes, in_chans, img_size or 28)
    if name == "speedrun94":
        return Speedrun((64, 256, 256), 2, 0.4, num_classes, in_chans)
    if name == "speedrun96":
        return Speedrun((128, 384, 512), 3, 0.1, num_classes, in_chans)
    if name.endswith("_cifar"):
        return _resnet_small_stem(name[:-len("_cifar")], num_classes, in_chans)
    net = _vit(name, num_classes, in_chans, img_size)
    if net is not None:
        return net
    import timm
    return timm.create_model(name, num_classes=num_classes, in_chans=in_chans)


def load(folder):
    """The model of a folder with model.safetensors and config.json, as Fovea saves it, in evaluation mode."""
    from safetensors.torch import load_file
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    channels, height, _ = config["pretrained_cfg"]["input_size"]
    net = build(config["architecture"], config["num_classes"], channels, height)
    net.load_state_dict(load_file(os.path.join(folder, "model.safetensors")), strict=True)
    return net.eval()
