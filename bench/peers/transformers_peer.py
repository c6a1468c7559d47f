"""Hugging Face transformers: prefill and decode of the receiver."""
import statistics
import time

import torch
from common import aligned, done, dtype, ids, job, repeat, repeated
from transformers import AutoModelForCausalLM, DynamicCache

DECODED = 16
model = AutoModelForCausalLM.from_pretrained(f"{job['models']}/receiver-{job['dtype']}", dtype=dtype)
model = aligned(model.eval())
model.tie_weights()
vocab = model.config.vocab_size
rows = []
for prompt in job["prompts"]:
    tokens = ids(prompt, vocab)

    def prefill():
        cache = DynamicCache()
        model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cache

    def decode(cache):
        times = []
        token = torch.tensor([[5]])
        for _ in range(DECODED):
            start = time.perf_counter()
            token = model(token, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True)
            times.append((time.perf_counter() - start) * 1000)
        cache.crop(prompt)
        return statistics.median(times[1:])

    if job["suite"] == "prefill":
        rows.append({"prompt": prompt, **repeated(prefill)})
    else:
        cache = prefill()
        decode(cache)
        rows.append({"prompt": prompt, **repeat(3, lambda: decode(cache))})
done(rows)
