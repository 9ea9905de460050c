"""How much memory loading a file takes, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["memory_of_loading", "reads_proc"]

reads_proc = pytest.mark.skipif(
    not Path("/proc/self/status").is_file(), reason="reads the memory of a process of Linux"
)

MEASURE = """
import sys, threading, time
import torch
import hguide

def anonymous():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) * 1024

def load(source):
    return hguide.load(source, {options})

load(sys.argv[1])  # what the first load of any model takes is not its weights
start, peak, on = anonymous(), 0, True

def watch():
    global peak
    while on:
        peak = max(peak, anonymous())
        time.sleep(0.0005)

thread = threading.Thread(target=watch)
thread.start()
model = load(sys.argv[2])
on = False
thread.join()
states = [part.state_dict() for part in vars(model).values() if isinstance(part, torch.nn.Module)]
print(max(peak, anonymous()) - start, sum(value.nbytes for state in states for value in state.values()))
"""


def memory_of_loading(small: Path, large: Path, options: str = "") -> tuple[int, int]:
    """Bytes that `hguide.load(large, ...)` takes at most of its own memory (not of mapped files), and its weights'.

    Args:
        small: a file of the same layout, loaded before.
        large: what is measured.
        options: of `hguide.load`, as Python.
    """
    command = [sys.executable, "-c", MEASURE.format(options=options), str(small), str(large)]
    taken, weights = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(taken), int(weights)
