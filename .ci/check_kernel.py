"""Which kernel of GATv2 an install has, and that it computes what PyG does.

    python check_kernel.py KERNEL [FOLDER]

fails unless KERNEL ("c" or "blocked") is the CPU's, and gasmcast was imported from FOLDER.
"""

import sys
from pathlib import Path

import torch
from torch_geometric.nn import GATv2Conv

import gasmcast
from gasmcast.nn import FusedGATv2Conv, gatv2_backend

kernel, *folder = sys.argv[1:]
home = Path(gasmcast.__file__).resolve()
if folder and not home.is_relative_to(Path(folder[0]).resolve()):
    sys.exit(f"gasmcast comes from {home}, not from {folder[0]}")
if gatv2_backend("cpu") != kernel:
    sys.exit(f"the kernel should be {kernel!r}, it is {gatv2_backend('cpu')!r}")

torch.manual_seed(0)
theirs = GATv2Conv(8, 20, heads=3, edge_dim=2).double()
ours = FusedGATv2Conv(8, 20, heads=3, edge_dim=2).double()
ours.load_state_dict(theirs.state_dict())
x, edge_attr = torch.randn(30, 8).double(), torch.randn(200, 2).double()
edge_index = torch.randint(30, (2, 200))
results = []
for layer in (theirs, ours):
    given = [tensor.clone().requires_grad_() for tensor in (x, edge_attr)]
    out = layer(given[0], edge_index, given[1])
    wanted = [*given, *(value for _, value in sorted(layer.named_parameters()))]
    results.append([out, *torch.autograd.grad(out.square().sum(), wanted)])
for expected, result in zip(*results, strict=True):
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
print(f"gasmcast {gasmcast.__version__}: kernel {kernel!r} equals PyG")
