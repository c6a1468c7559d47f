"""What the Python peers share: the job and `--device` (default cpu) from the command line, repeated timing, the rows."""
import argparse
import json
import statistics
import time

import torch

arguments = argparse.ArgumentParser()
arguments.add_argument("job", type=json.loads)
arguments.add_argument("--device", type=torch.device, default=torch.device("cpu"))
given = arguments.parse_args()
job, device = given.job, given.device
torch.set_num_threads(job["threads"])
torch.set_grad_enabled(False)
dtype = getattr(torch, job["dtype"])


def ids(count, vocab):
    return torch.tensor([[(i * 7919 + 13) % vocab for i in range(count)]])


def repeated(work):
    """The median in milliseconds of several runs after one that warms up."""

    def once():
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1000

    first = once()
    if device.type == "cuda":
        return statistics.median([once() for _ in range(25)][5:])
    return statistics.median(once() for _ in range(2 if first > 1000 else 4 if first > 200 else 9))


def aligned(model):
    """Weights are views of a mapped file and lie misaligned: their copies are what a fair run uses."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def done(rows):
    print(json.dumps(rows))
