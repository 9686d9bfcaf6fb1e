"""Which modules the doctests leave out."""

from importlib.util import find_spec

# Kernels for a GPU, which import Triton; not every platform has it.
collect_ignore_glob = [] if find_spec("triton") else ["gasmcast/nn/gatv2_kernels/triton_*.py"]
