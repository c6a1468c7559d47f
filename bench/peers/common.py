"""What the Python peers share: the job and `--device` (default cpu) from the command line, repeated timing, the rows."""
import argparse
import json
import os
import statistics
import subprocess
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


def open_reader():
    """The read bandwidth of the moment, GB/s, where the job names the program that measures it; else nothing."""
    if "reader" not in job:
        return lambda: None
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    command = [job["reader"], str(job["threads"]), "reads"]
    pipe = subprocess.PIPE
    program = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def read():
        program.stdin.write("\n")
        program.stdin.flush()
        return float(program.stdout.readline())

    read()
    return read


bandwidth = open_reader()


def repeat(count, work):
    """{ ms, runs }: the median of runs of `work`, which returns milliseconds, and each with the bandwidth before and after it."""
    runs = []
    before = bandwidth()
    for _ in range(count):
        run = {"ms": work()}
        after = bandwidth()
        if after is not None:
            run["reads"] = [before, after]
        before = after
        runs.append(run)
    found = {"ms": statistics.median(run["ms"] for run in runs)}
    return found if before is None else {**found, "runs": runs}


def repeated(work):
    """The same for work that is timed here, after a run that warms up and decides how many follow."""

    def once():
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1000

    first = once()
    if device.type == "cuda":
        return {"ms": statistics.median([once() for _ in range(25)][5:])}
    return repeat(2 if first > 1000 else 4 if first > 200 else 9, once)


def aligned(model):
    """Weights are views of a mapped file and lie misaligned: their copies are what a fair run uses."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model


def done(rows):
    print(json.dumps(rows))
