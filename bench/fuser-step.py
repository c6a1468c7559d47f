"""One fuser training step in eager PyTorch, for comparison with fuser-step.mjs: the same shapes, rows and optimiser.

Both models are frozen and read their prompts without gradients; the receiver's fused rows are written over, and the loss runs back
through its attention into the projectors. Samples are padded on the right to the longest, as a PyTorch loop does; projectors see the
rows that are fused alone. Weights are random: only the time is compared. Usage: python3 fuser-step.py shape.json threads steps
"""
import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

shape, threads, steps = json.load(open(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
torch.manual_seed(0)


def norm(x, weight):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, d, hq, hk = (c[k] for k in ("hidden", "headDim", "heads", "kvHeads"))
        self.d, self.hq, self.hk, self.normed = d, hq, hk, c["normed"]
        self.norm1, self.norm2 = (nn.Parameter(torch.ones(h)) for _ in range(2))
        if self.normed:
            self.q_norm, self.k_norm = (nn.Parameter(torch.ones(d)) for _ in range(2))
        bias = not self.normed
        self.q, self.k, self.v = (nn.Linear(h, n * d, bias=bias) for n in (hq, hk, hk))
        self.o = nn.Linear(hq * d, h, bias=False)
        self.gate, self.up = (nn.Linear(h, c["intermediate"], bias=False) for _ in range(2))
        self.down = nn.Linear(c["intermediate"], h, bias=False)

    def rows(self, x, cos, sin):
        b, n, _ = x.shape
        y = norm(x, self.norm1)
        q, k, v = (p(y).view(b, n, -1, self.d).transpose(1, 2) for p in (self.q, self.k, self.v))
        if self.normed:
            q, k = norm(q, self.q_norm), norm(k, self.k_norm)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def finish(self, x, q, k, v, **mask):
        b, n, _ = x.shape
        a = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **mask)
        x = x + self.o(a.transpose(1, 2).reshape(b, n, -1))
        y = norm(x, self.norm2)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = nn.Parameter(torch.ones(c["hidden"]))
        self.requires_grad_(False)

    def turns(self, first, count):
        d = self.c["headDim"]
        angle = torch.outer(torch.arange(first, first + count).float(), 1e4 ** (-torch.arange(0, d, 2).float() / d))
        return angle.cos(), angle.sin()


def prefill(model, ids):
    """Keys and values of all layers; the last layer's output is not needed."""
    cos, sin = model.turns(0, ids.shape[1])
    x, kept = model.embed(ids), []
    for i, block in enumerate(model.blocks):
        q, k, v = block.rows(x, cos, sin)
        kept.append([k, v])
        if i + 1 < len(model.blocks):
            x = block.finish(x, q, k, v, is_causal=True)
    return kept


class Feed(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width))
        self.w1, self.w2 = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        return x + self.drop(self.w2(F.gelu(self.w1(norm(x, self.norm)))))


class Tower(nn.Module):
    """One part, keys or values, of a fused layer."""

    def __init__(self, source, target, heads, hidden, inner):
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(source + target, hidden)
        self.shared, self.scalar, self.block = Feed(hidden, inner), Feed(hidden, hidden), Feed(hidden, inner)
        self.head, self.out = nn.Linear(hidden, heads), nn.Linear(hidden, target)
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, source, target, temperature):
        h = self.shared(self.enter(torch.cat((source, target), -1)))
        weight = torch.sigmoid(self.head(self.scalar(h)))
        rows = self.out(self.block(h)).view(len(h), self.heads, -1)
        u = torch.rand(len(h), self.heads)
        gumbel = -torch.log(-torch.log(u + 1e-20) + 1e-20)
        gate = torch.sigmoid((self.logit + gumbel) / temperature)
        return target + ((weight * gate).unsqueeze(-1) * rows).flatten(1)


r, s, fuser = shape["receiver"], shape["sharer"], shape["fuser"]
receiver, sharer = Decoder(r), Decoder(s)
wide = lambda c: c["kvHeads"] * c["headDim"]  # noqa: E731
fused = [(i, j) for i, j in enumerate(fuser["layerMap"]) if j is not None]
towers = nn.ModuleList(
    Tower(wide(s), wide(r), r["kvHeads"], fuser["hidden"], fuser["intermediate"]) for _ in range(2 * len(fused))
)
optimizer = torch.optim.AdamW(towers.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)


def padded(rows):
    out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def flat(rows):
    return rows.transpose(1, 2).flatten(2)


def step(samples, temperature):
    b, heads, d = len(samples), r["kvHeads"], r["headDim"]
    with torch.no_grad():
        theirs = prefill(sharer, padded([x["sharer"] for x in samples]))
        own = prefill(receiver, padded([x["receiver"][: x["split"]] for x in samples]))
    at = [(i, a, c) for i, x in enumerate(samples) for a, c in x["fused"]]
    where, mine, other = (torch.tensor(column) for column in zip(*at))
    for n, (i, j) in enumerate(fused):
        for part in (0, 1):
            onto = flat(own[i][part])
            new = towers[2 * n + part](flat(theirs[j][part])[where, other], onto[where, mine], temperature)
            own[i][part] = onto.index_put((where, mine), new).view(b, -1, heads, d).transpose(1, 2)
    rest = padded([x["receiver"][x["split"] : -1] for x in samples])
    first = own[0][0].shape[2]
    split = torch.tensor([x["split"] for x in samples])
    positions = split.unsqueeze(1) + torch.arange(rest.shape[1])
    angle = positions.unsqueeze(-1) * (1e4 ** (-torch.arange(0, d, 2).float() / d))
    cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)
    seen = (torch.arange(first) < split.unsqueeze(1)).unsqueeze(1).expand(-1, rest.shape[1], -1)
    causal = torch.ones(rest.shape[1], rest.shape[1], dtype=torch.bool).tril().expand(b, -1, -1)
    mask = torch.cat((seen, causal), -1).unsqueeze(1)
    x = receiver.embed(rest)
    for block, (k, v) in zip(receiver.blocks, own):
        q, k2, v2 = block.rows(x, cos, sin)
        x = block.finish(x, q, torch.cat((k, k2), 2), torch.cat((v, v2), 2), attn_mask=mask)
    rows, targets = [], []
    for i, one in enumerate(samples):
        for t in range(one["target"], len(one["receiver"])):
            rows.append(i * rest.shape[1] + t - one["split"] - 1)
            targets.append(one["receiver"][t])
    logits = F.linear(norm(x.flatten(0, 1)[rows], receiver.norm), receiver.embed.weight)
    loss = F.cross_entropy(logits, torch.tensor(targets))
    loss.backward()
    nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


times, cpu = [], []
for n in range(steps):
    began, used = time.perf_counter(), time.process_time()
    loss = step(shape["batches"][n % len(shape["batches"])], 1 * 0.001 ** (n / steps))
    times.append((time.perf_counter() - began) * 1000)
    cpu.append((time.process_time() - used) * 1000)
times.sort()
cpu.sort()
print(
    json.dumps(
        {
            "best": times[0],
            "median": times[len(times) // 2],
            "bestCpu": cpu[0],
            "medianCpu": cpu[len(cpu) // 2],
            "loss": loss,
        }
    )
)
