"""Eager PyTorch, the fuser alone: the formulas of the published C2C projector, layer by layer, on caches of the same shapes."""
import torch
from common import device, done, dtype, job, repeated
from torch import nn
from torch.nn import functional as F

SHARER, RECEIVER, HEADS, HIDDEN, INNER, LAYERS = 128, 1024, 8, 1024, 1024, 28


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        self.w1 = nn.Linear(HIDDEN, inner, bias=False)
        self.w2 = nn.Linear(inner, HIDDEN, bias=False)

    def forward(self, x):
        return x + self.w2(F.gelu(self.w1(self.norm(x))))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.into = nn.Linear(SHARER + RECEIVER, HIDDEN)
        self.first, self.scalar, self.projection = Block(INNER), Block(HIDDEN), Block(INNER)
        self.weight = nn.Linear(HIDDEN, HEADS)
        self.out = nn.Linear(HIDDEN, RECEIVER)

    def forward(self, sharer, receiver):
        batch, heads, rows, dim = receiver.shape
        flat = lambda x: x.transpose(1, 2).reshape(batch, rows, -1)
        hidden = self.first(self.into(torch.cat([flat(sharer), flat(receiver)], -1)))
        weight = torch.sigmoid(self.weight(self.scalar(hidden))).transpose(1, 2).unsqueeze(-1)
        projected = self.out(self.projection(hidden)).view(batch, rows, heads, dim).transpose(1, 2)
        return receiver + weight * projected


towers = [[Tower().to(device, dtype).eval() for _ in range(2)] for _ in range(LAYERS)]
rows = []
for prompt in job["prompts"]:
    receiver = [[torch.randn(1, 8, prompt, 128, dtype=dtype, device=device) for _ in range(2)] for _ in range(LAYERS)]
    sharer = [[torch.randn(1, 2, prompt, 64, dtype=dtype, device=device) for _ in range(2)] for _ in range(LAYERS)]

    def fuse():
        for layer in range(LAYERS):
            for part in range(2):
                towers[layer][part](sharer[layer][part], receiver[layer][part])

    rows.append({"prompt": prompt, **repeated(fuse)})
done(rows)
