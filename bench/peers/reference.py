"""The public C2C code in the user's own clone: time to the first token of one receiver, one sharer and 28 projectors.

Its newest commit needs these changes to run on current libraries; they are made in memory, the clone stays as it is:
  a. two statements of the last section belong inside the `if include_response` above them (else UnboundLocalError);
  b. caches of current transformers lack `key_cache` and `value_cache` lists;
  c. the first decode step passes a mask of one column: newer transformers then see the first key only, so it is widened.
"""
import importlib.util
import re
import sys
from pathlib import Path

import torch
from common import aligned, done, dtype, ids, job, repeated
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache, DynamicLayer

clone = Path(job["clone"])
sys.path.insert(0, str(clone))


class Part:
    """One side of a cache's layers, as the list that older transformers had."""

    def __init__(self, cache, name):
        self.layers, self.name = cache.layers, name

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, index):
        return getattr(self.layers[index], self.name)

    def __setitem__(self, index, value):
        setattr(self.layers[index], self.name, value)

    def append(self, value):
        layer = next((one for one in self.layers if getattr(one, self.name, None) is None), None)
        if layer is None:
            layer = DynamicLayer()
            self.layers.append(layer)
        setattr(layer, self.name, value)
        layer.dtype, layer.device, layer.is_initialized = value.dtype, value.device, True


DynamicCache.key_cache = property(lambda cache: Part(cache, "keys"))
DynamicCache.value_cache = property(lambda cache: Part(cache, "values"))
DynamicCache.__getitem__ = lambda cache, index: (cache.layers[index].keys, cache.layers[index].values)

path = clone / "rosetta/model/wrapper.py"
lines = path.read_text().split("\n")
pattern = re.compile(r"self\.kv_cache_dict\[.*\] = clone_kv_cache\((base|source)_output_kv_cache\)")
for number, line in enumerate(lines):
    if pattern.search(line):
        lines[number] = "    " + line
spec = importlib.util.spec_from_file_location("rosetta.model.wrapper", path)
wrapper = importlib.util.module_from_spec(spec)
exec(compile("\n".join(lines), str(path), "exec"), wrapper.__dict__)
from rosetta.model.projector import C2CProjector  # noqa: E402


def load(name):
    model = AutoModelForCausalLM.from_pretrained(f"{job['models']}/{name}-{job['dtype']}", dtype=dtype)
    model = aligned(model.eval())
    model.tie_weights()
    return model


receiver, sharer = load("receiver"), load("sharer")
forward = receiver.forward


def widened(*args, attention_mask=None, past_key_values=None, input_ids=None, **more):
    seen = past_key_values.get_seq_length() if past_key_values is not None else 0
    if attention_mask is not None and attention_mask.shape[1] < seen + input_ids.shape[1]:
        attention_mask = torch.ones(input_ids.shape[0], seen + input_ids.shape[1], dtype=attention_mask.dtype)
    more.update(attention_mask=attention_mask, past_key_values=past_key_values, input_ids=input_ids)
    return forward(*args, **more)


receiver.forward = widened
count = receiver.config.num_hidden_layers
sizes = {"source_dim": 64, "target_dim": 128, "source_num_heads": 2, "target_num_heads": 8}
projectors = [
    C2CProjector(**sizes, hidden_dim=1024, intermediate_dim=1024, num_layers=3, dtype=dtype).eval() for _ in range(count)
]
for projector in projectors:
    for gate in (projector.key_gate_logit, projector.value_gate_logit):
        gate.fill_(1.0)
model = wrapper.RosettaModel([receiver, sharer], 0, projectors).eval()
for layer in range(count):
    model.set_projector_config(1, max(0, layer - 4), 0, layer, layer)

rows = []
for prompt in job["prompts"]:
    tokens = ids(prompt, min(receiver.config.vocab_size, sharer.config.vocab_size))
    section = lambda sharers, length: torch.tensor([sharers, 0]).repeat(1, length, 1)
    sections = [section(1, prompt - 1), section(-1, 1)]

    def first_token():
        model.kv_cache_dict = {}
        model.generate(
            kv_cache_index=sections,
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=1,
            do_sample=False,
        )

    rows.append({"prompt": prompt, **repeated(first_token)})
done(rows)
