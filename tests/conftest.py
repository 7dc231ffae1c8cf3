"""What every test run shares: one torch thread, and the same hypothesis examples wherever CI runs."""

import os

import torch
from hypothesis import settings

# Two threads on a shared machine are slower than one on the small tensors of tests, and sums depend on their number.
torch.set_num_threads(1)

# Tests time nothing. In CI, where a failure must come from the change, examples do not vary from run to run.
settings.register_profile("presage", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("presage")
