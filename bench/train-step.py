"""One training step in eager PyTorch, for comparison with train-step.mjs: the same decoder, documents and optimiser.

Documents are padded on the right to the longest, as a PyTorch loop does. Logits are made for scored rows alone, so nothing
that a careful loop would leave out is counted. Prints one JSON line. Usage: python3 train-step.py shape.json threads steps
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
config, documents = shape["config"], shape["documents"]
H, D, HQ, HK = (config[k] for k in ("hidden_size", "head_dim", "num_attention_heads", "num_key_value_heads"))


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        y = x.float()
        return self.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(H), Norm(H)
        self.q, self.k, self.v = (nn.Linear(H, n * D, bias=False) for n in (HQ, HK, HK))
        self.o = nn.Linear(HQ * D, H, bias=False)
        self.q_norm, self.k_norm = Norm(D), Norm(D)
        inner = config["intermediate_size"]
        self.gate, self.up = nn.Linear(H, inner, bias=False), nn.Linear(H, inner, bias=False)
        self.down = nn.Linear(inner, H, bias=False)

    def forward(self, x, cos, sin):
        b, n, _ = x.shape
        y = self.norm1(x)
        q = rotate(self.q_norm(self.q(y).view(b, n, HQ, D)).transpose(1, 2), cos, sin)
        k = rotate(self.k_norm(self.k(y).view(b, n, HK, D)).transpose(1, 2), cos, sin)
        v = self.v(y).view(b, n, HK, D).transpose(1, 2)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(a.transpose(1, 2).reshape(b, n, HQ * D))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(config["vocab_size"], H)
        nn.init.normal_(self.embed.weight, 0, 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(config["num_hidden_layers"]))
        self.norm = Norm(H)

    def forward(self, ids, rows):
        n = ids.shape[1]
        angle = torch.outer(torch.arange(n).float(), 1e4 ** (-torch.arange(0, D, 2).float() / D))
        cos, sin = angle.cos(), angle.sin()
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x.flatten(0, 1)[rows]), self.embed.weight)


def batch(step):
    chosen = documents[step % len(documents)]
    longest = max(len(d["tokens"]) for d in chosen) - 1
    ids, rows, targets = torch.zeros(len(chosen), longest, dtype=torch.long), [], []
    for b, d in enumerate(chosen):
        ids[b, : len(d["tokens"]) - 1] = torch.tensor(d["tokens"][:-1])
        for i in d["targets"]:
            rows.append(b * longest + i - 1)
            targets.append(d["tokens"][i])
    return ids, torch.tensor(rows), torch.tensor(targets)


model = Decoder()
matrices = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() < 2]
optimizer = torch.optim.AdamW(
    [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}], lr=1e-3, betas=(0.9, 0.98)
)
times, cpu, losses = [], [], []
for step in range(steps):
    began, used = time.perf_counter(), time.process_time()
    ids, rows, targets = batch(step)
    loss = F.cross_entropy(model(ids, rows), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    times.append((time.perf_counter() - began) * 1000)
    cpu.append((time.process_time() - used) * 1000)
times.sort()
cpu.sort()
half = len(times) // 2
print(json.dumps({"best": times[0], "median": times[half], "bestCpu": cpu[0], "medianCpu": cpu[half], "loss": losses[-1]}))
