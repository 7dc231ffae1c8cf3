import subprocess
import sys

import pytest

from presage.common.memory import keep_freed_memory

PAGES = """
import resource, sys
import torch
from presage.common.memory import keep_freed_memory

def faults():
    for _ in range(30):  # blocks find their places
        torch.ones(10_000_000)  # 40 MB: beyond what the C library keeps by itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
if not keep_freed_memory():
    sys.exit(3)
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux is asked")
def test_tensors_of_before_leave_their_pages_to_those_that_follow() -> None:
    found = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=False)
    if found.returncode == 3:
        pytest.skip("another C library than glibc, or an older one")
    assert found.returncode == 0, found.stderr
    given_back, kept = map(int, found.stdout.split())
    assert given_back > 10_000
    assert kept < given_back / 10


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
