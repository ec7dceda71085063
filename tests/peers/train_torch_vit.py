#!/usr/bin/env python3
"""Peer: a small ViT on CIFAR-10 binaries with PyTorch and timm on the CPU. One JSON line per epoch.

usage: train_torch_vit.py SEED EPOCHS THREADS DIR_WITH_BIN_FILES

Model: timm VisionTransformer, 32 pixels, patch 4, dim 192, depth 6, 3 heads, class token, learned positions, its own initialisation.
Recipe: all 50,000 training images, last incomplete batch dropped; batch 128; AdamW, lr 1e-3, betas 0.9 0.999, weight decay 0.05 on
weights of rank > 1 except class token and positions; linear warm-up over 1 epoch, cosine to 0 per step; zero padding of 4 raw pixels,
random 32x32 crop, flip with probability 1/2; normalised by the training set's channel mean and deviation; cross-entropy; float32;
evaluated after the last epoch, no averaging.

The same with Fovea:
  fovea train --data cifar10 --model vit_tiny_patch4_32_d6 --epochs 10 -b 128 --opt adamw --lr 1e-3 --weight-decay 0.05
              --clip-grad 0 --sched cosine --warmup-epochs 1 --crop-pad 4 --hflip 0.5 --val-split 0 --seed SEED
"""
import json
import math
import sys
import time

import numpy as np
import timm
import torch
import torch.nn.functional as F


def load(folder, files):
    raw = np.concatenate([np.fromfile(f"{folder}/{f}", np.uint8).reshape(-1, 3073) for f in files])
    return torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(raw[:, 0].astype(np.int64))


def main():
    seed, epochs, threads, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    x_train, y_train = load(folder, [f"data_batch_{i}.bin" for i in range(1, 6)])
    x_test, y_test = load(folder, ["test_batch.bin"])
    mean = (x_train.float() / 255).mean((0, 2, 3)).view(1, 3, 1, 1)
    std = (x_train.float() / 255).std((0, 2, 3)).view(1, 3, 1, 1)
    net = timm.models.vision_transformer.VisionTransformer(img_size=32, patch_size=4, embed_dim=192, depth=6, num_heads=3, num_classes=10)
    decay = [p for n, p in net.named_parameters() if p.ndim > 1 and n not in ("cls_token", "pos_embed")]
    rest = [p for n, p in net.named_parameters() if p.ndim <= 1 or n in ("cls_token", "pos_embed")]
    batch, peak = 128, 1e-3
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=peak)
    per_epoch = len(x_train) // batch
    total, warm, step, train_s = per_epoch * epochs, per_epoch, 0, 0.0
    for epoch in range(epochs):
        net.train()
        order = torch.from_numpy(rng.permutation(len(x_train)))
        start, loss_sum = time.time(), 0.0
        for i in range(per_epoch):
            index = order[i * batch:(i + 1) * batch]
            x = (F.pad(x_train[index], (4, 4, 4, 4)).float() / 255 - mean) / std
            top, left, flip = rng.integers(0, 9, batch), rng.integers(0, 9, batch), rng.random(batch) < 0.5
            x = torch.stack([x[k, :, top[k]:top[k] + 32, left[k]:left[k] + 32].flip(2) if flip[k]
                             else x[k, :, top[k]:top[k] + 32, left[k]:left[k] + 32] for k in range(batch)])
            lr = peak * (step + 1) / warm if step < warm else peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
            for group in opt.param_groups:
                group["lr"] = lr
            loss = F.cross_entropy(net(x), y_train[index])
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            step += 1
            loss_sum += loss.item()
        train_s += time.time() - start
        line = dict(seed=seed, epoch=epoch + 1, train_loss=round(loss_sum / per_epoch, 4), train_s=round(train_s, 1))
        if epoch + 1 == epochs:
            net.eval()
            right = test_loss = 0
            with torch.no_grad():
                for i in range(0, len(x_test), 500):
                    out = net((x_test[i:i + 500].float() / 255 - mean) / std)
                    right += (out.argmax(1) == y_test[i:i + 500]).sum().item()
                    test_loss += F.cross_entropy(out, y_test[i:i + 500], reduction="sum").item()
            line.update(test_top1=100 * right / len(x_test), test_loss=round(test_loss / len(x_test), 4))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
