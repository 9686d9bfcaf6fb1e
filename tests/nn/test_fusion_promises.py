"""What the specification promises of the fusion, where no clock is needed to tell.

At its sizes: 196 patches of 768 and 8 segments of 512, three layers, 8 heads, 256 wide, 8 clips.
"""

import pytest
import torch
from torch import nn

from benchmarks.fusion import CLASSES, Case, Stacks, flops_of, number_of_parameters
from benchmarks.measure import kept_bytes, peak_bytes
from gasmcast import GASMCAST, BottleneckCrossAttention, CrossAttention


@pytest.fixture(scope="module")
def stacks():
    return Stacks(Case(8), "cpu")


# A way, and the stack at full width it is held against.
PAIRS = [
    ("bottleneck", "vanilla"),
    ("bottleneck", "CrossAttention"),
    ("bottleneck, pooled", "vanilla, pooled"),
    ("bottleneck, pooled", "CrossAttention, pooled"),
]


@pytest.mark.parametrize(("ours", "full"), PAIRS)
def test_a_quarter_of_the_operations(stacks, ours, full):
    assert flops_of(stacks.forward[ours]) <= 0.25 * flops_of(stacks.forward[full])
    assert flops_of(stacks.step(ours)) <= 0.25 * flops_of(stacks.step(full))


@pytest.mark.parametrize(("ours", "full"), PAIRS)
def test_two_fifths_of_the_memory(stacks, ours, full):
    assert kept_bytes(stacks.forward[ours]) <= 0.3 * kept_bytes(stacks.forward[full])
    assert peak_bytes(stacks.step(ours)) <= 0.4 * peak_bytes(stacks.step(full))


def test_parameters():
    model = nn.ModuleList([GASMCAST(), nn.Linear(768 + 512, CLASSES)])
    assert number_of_parameters(model) < 8_000_000
    ours, full = (
        number_of_parameters(kind()) for kind in (BottleneckCrossAttention, CrossAttention)
    )
    assert ours < 0.3 * full


def test_a_fresh_stack_is_the_identity_and_lets_gradients_through_undamped():
    torch.manual_seed(0)
    semantic = torch.randn(2, 196, 768, requires_grad=True)
    motion = torch.randn(2, 8, 512, requires_grad=True)
    streams = semantic, motion
    for _ in range(3):
        streams = BottleneckCrossAttention()(*streams)
    assert torch.equal(streams[0], semantic)
    assert torch.equal(streams[1], motion)
    grads = [torch.randn_like(stream) for stream in streams]
    for got, grad in zip(
        torch.autograd.grad(streams, [semantic, motion], grads), grads, strict=True
    ):
        assert torch.equal(got, grad)
