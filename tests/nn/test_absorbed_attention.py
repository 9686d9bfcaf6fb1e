"""Absorbing the projections of many tokens changes the cost of a layer and nothing else."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from gasmcast import BottleneckCrossAttention
from gasmcast.nn import absorbed_attention
from gasmcast.nn.absorbed_attention import is_worthwhile

SEM_DIM, MOT_DIM, DIM, HEADS = 6, 5, 8, 2


def layer(drop_path: float = 0.0) -> BottleneckCrossAttention:
    torch.manual_seed(0)
    module = BottleneckCrossAttention(SEM_DIM, MOT_DIM, DIM, HEADS, drop_path=drop_path).double()
    for parameter in module.parameters():  # nothing at a start value that would hide its gradient
        nn.init.normal_(parameter)
    return module


def tokens(batch: int, patches: int, segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return (
        torch.randn(batch, patches, SEM_DIM, dtype=torch.float64, requires_grad=True),
        torch.randn(batch, segments, MOT_DIM, dtype=torch.float64, requires_grad=True),
    )


def positions(kind: str, batch: int, patches: int, segments: int) -> tuple:
    if kind == "none":
        return None, None
    clips = (batch,) if kind == "of each clip" else ()
    return torch.rand(*clips, patches, 2) * 4, torch.rand(*clips, segments, 1) * 4


def masks(kind: str, patches: int, segments: int) -> dict:
    if kind == "none":
        return {}
    torch.manual_seed(2)
    semantic, motion = torch.rand(4, patches) > 0.4, torch.rand(4, segments) > 0.4
    semantic[:, 0] = motion[:, 0] = True
    if kind == "nothing in some clips":
        semantic[1] = motion[2] = semantic[3] = motion[3] = False
    return {"semantic_mask": semantic, "motion_mask": motion}


def run(module, *inputs, **options):
    torch.manual_seed(3)  # of drop_path
    return module(*inputs, **options)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpoint(use_reentrant):
    module, streams, places = layer(), tokens(2, 40, 2), positions("one for all", 2, 40, 2)
    expected = run(module, *streams, *places)
    sum(stream.square().sum() for stream in expected).backward()
    leaves = [*streams, *module.parameters()]
    gradients = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    found = checkpoint(module, *streams, *places, use_reentrant=use_reentrant)
    sum(stream.square().sum() for stream in found).backward()
    torch.testing.assert_close([*found], [*expected])
    torch.testing.assert_close([leaf.grad for leaf in leaves], gradients)


@pytest.fixture
def plainly(monkeypatch):
    """Run a layer without absorption."""

    def call(module, *inputs, **options):
        with monkeypatch.context() as patch:
            patch.setattr(absorbed_attention, "is_worthwhile", lambda *sizes: False)
            return run(module, *inputs, **options)

    return call


@pytest.fixture
def absorbed_calls(monkeypatch):
    """How often a layer absorbs."""
    calls = []
    exchange = absorbed_attention.exchange
    monkeypatch.setattr(
        absorbed_attention, "exchange", lambda *args: calls.append(1) or exchange(*args)
    )
    return calls


@pytest.mark.parametrize(("patches", "segments"), [(6, 3), (3, 6), (9, 4), (5, 1)])
@pytest.mark.parametrize("place", ["none", "shared", "of each clip"])
@pytest.mark.parametrize("mask", ["none", "some", "nothing in some clips"])
@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_the_same_as_projecting(patches, segments, place, mask, drop_path, plainly, absorbed_calls):
    module, inputs = layer(drop_path), tokens(4, patches, segments)
    arguments = (*inputs, *positions(place, 4, patches, segments))
    options = masks(mask, patches, segments) | {"return_attention": True}
    expected = plainly(module, *arguments, **options)
    assert not absorbed_calls
    got = run(module, *arguments, **options)
    assert absorbed_calls
    expected, got = ([*out[:2], *out[2]] for out in (expected, got))
    # Of attention to nothing there is no right value.
    heard = [torch.ones(4, dtype=torch.bool)] * 2
    if mask == "nothing in some clips":
        heard = [options[name].any(dim=1) for name in ("motion_mask", "semantic_mask")]
    for i in (0, 1):
        torch.testing.assert_close(got[i], expected[i])
        torch.testing.assert_close(got[2 + i][heard[i]], expected[2 + i][heard[i]])

    grads = [torch.randn_like(tensor) for tensor in expected]
    for grad, clips in zip(grads[2:], heard, strict=True):
        grad[~clips] = 0
    wanted = [*inputs, *module.parameters()]
    names = ["semantic", "motion", *dict(module.named_parameters())]
    for name, a, b in zip(
        names,
        torch.autograd.grad(expected, wanted, grads, allow_unused=True),
        torch.autograd.grad(got, wanted, grads, allow_unused=True),
        strict=True,
    ):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(b, a, msg=lambda text, name=name: f"{name}: {text}")


def test_derivatives_of_first_and_second_order():
    module, (semantic, motion) = layer(), tokens(2, 4, 2)
    places = positions("shared", 2, 4, 2)
    mask = torch.tensor([[True, True, True, False], [True] * 4])
    names = [name for name, _ in module.named_parameters()]

    def of_everything(semantic, motion, *parameters):
        state = dict(zip(names, parameters, strict=True))
        out = torch.func.functional_call(
            module,
            state,
            (semantic, motion, *places),
            {"semantic_mask": mask, "return_attention": True},
        )
        return *out[:2], *out[2]

    arguments = (semantic, motion, *(p.detach().requires_grad_() for p in module.parameters()))
    assert torch.autograd.gradcheck(of_everything, arguments)
    assert torch.autograd.gradgradcheck(of_everything, arguments)


@pytest.mark.parametrize("stream", [0, 1])
def test_one_stream_of_the_output_is_enough(stream, plainly):
    module, inputs = layer(), tokens(3, 6, 3)
    places = positions("shared", 3, 6, 3)
    wanted = [*inputs, *module.parameters()]

    def gradients(call):
        out = call(module, *inputs, *places)[stream]
        return torch.autograd.grad(out.square().sum(), wanted, materialize_grads=True)

    for a, b in zip(gradients(plainly), gradients(run), strict=True):
        torch.testing.assert_close(b, a)


def test_frozen_parts_get_no_gradient_and_the_others_the_same(plainly):
    module, (semantic, motion) = layer(), tokens(3, 6, 3)
    semantic, places = semantic.detach(), positions("shared", 3, 6, 3)
    for frozen in (module.sem_compress, module.sem_expand, module.sem_norm):
        frozen.requires_grad_(False)

    def gradients(call):
        module.zero_grad()
        out = call(module, semantic, motion, *places)
        (out[0].square().sum() + out[1].square().sum()).backward()
        return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    expected, got = gradients(plainly), gradients(run)
    assert expected.keys() == got.keys()
    assert "sem_expand.weight" not in got
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient)


def test_biases_are_trained_where_weights_are_frozen(plainly):
    module, (semantic, motion) = layer(drop_path=0.5), tokens(3, 6, 3)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    places = positions("shared", 3, 6, 3)

    def gradients(call):
        module.zero_grad()
        out = call(module, semantic.detach(), motion.detach(), *places)
        (out[0].square().sum() + out[1].square().sum()).backward()
        return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}

    expected, got = gradients(plainly), gradients(run)
    assert expected.keys() == got.keys() >= {"sem_compress.bias", "sem_expand.bias"}
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient)


def test_inputs_stay_as_they_are():
    module, (semantic, motion) = layer(), tokens(4, 6, 3)
    before = semantic.detach().clone(), motion.detach().clone()
    out = module(semantic, motion, **masks("some", 6, 3))
    grad = torch.randn_like(out[0])
    kept = grad.clone()
    out[0].backward(grad)
    assert torch.equal(grad, kept)
    assert torch.equal(semantic, before[0])
    assert torch.equal(motion, before[1])


def test_worthwhile_by_the_count_of_products():
    # At the specification's sizes: 8 heads, 256 wide.
    assert is_worthwhile(196, 8, 256, 8)
    assert is_worthwhile(196, 30, 256, 8)
    assert not is_worthwhile(196, 31, 256, 8)
    assert not is_worthwhile(8, 196, 256, 8)  # the few are never more than the many
    assert is_worthwhile(196, 195, 256, 1)
    assert is_worthwhile(2, 1, 2, 1)  # 4 * 8 products against 4 * 12
    assert not is_worthwhile(1, 1, 2, 1)  # 4 * 6 against 4 * 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_good_as_projecting(dtype, plainly):
    torch.manual_seed(0)
    module = BottleneckCrossAttention(96, 64, 64, 4)
    for expand in (module.sem_expand, module.mot_expand):
        nn.init.normal_(expand.weight, std=0.1)
    semantic, motion = torch.randn(2, 40, 96), torch.randn(2, 8, 64)
    places = torch.rand(40, 2) * 6, torch.arange(8.0)[:, None]
    exact = plainly(copy.deepcopy(module).double(), semantic.double(), motion.double(), *places)
    half = copy.deepcopy(module).to(dtype)
    inputs = semantic.to(dtype), motion.to(dtype)
    projected, absorbed = plainly(half, *inputs, *places), run(half, *inputs, *places)
    for a, b, right in zip(projected, absorbed, exact, strict=True):
        assert b.dtype is dtype
        assert (b - right).abs().max() <= 1.5 * (a - right).abs().max()


@pytest.mark.parametrize("return_attention", [False, True])
def test_autocast(return_attention, absorbed_calls):
    torch.manual_seed(0)
    module = BottleneckCrossAttention(96, 64, 64, 4, drop_path=0.5)
    for expand in (module.sem_expand, module.mot_expand):
        nn.init.normal_(expand.weight, std=0.1)
    semantic, motion = torch.randn(2, 40, 96, requires_grad=True), torch.randn(2, 8, 64)
    places = torch.rand(40, 2) * 6, torch.arange(8.0)[:, None]
    options = {"semantic_mask": torch.rand(2, 40) > 0.2, "return_attention": return_attention}
    exact = run(module, semantic, motion, *places, **options)
    wanted = [semantic, *module.parameters()]
    right = torch.autograd.grad(exact[0].square().sum() + exact[1].square().sum(), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        out = run(module, semantic, motion, *places, **options)
    got = torch.autograd.grad(out[0].square().sum() + out[1].square().sum(), wanted)
    assert len(absorbed_calls) == 2
    assert out[0].dtype is torch.float32  # the residual keeps the type of the stream
    torch.testing.assert_close(out[0], exact[0], atol=0.05, rtol=0.05)
    for a, b in zip(got, right, strict=True):
        assert a.dtype is torch.float32
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_backward_within_autocast(plainly):
    module = layer().float()
    semantic, motion = (tensor.detach().float() for tensor in tokens(2, 6, 3))

    def gradients(call):
        module.zero_grad()
        out = call(module, semantic, motion)
        with torch.autocast("cpu", torch.bfloat16):
            out[0].square().sum().backward()
        return module.sem_compress.weight.grad

    assert gradients(run).isfinite().all()
    close = F.cosine_similarity(gradients(run).flatten(), gradients(plainly).flatten(), dim=0)
    assert close > 0.99


def test_autocast_leaves_float64_alone(plainly):
    module, inputs = layer(), tokens(2, 6, 3)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = plainly(module, *inputs), run(module, *inputs)
    for a, b in zip(expected, got, strict=True):
        assert b.dtype is torch.float64
        torch.testing.assert_close(b, a)


def biased(module):
    value = nn.Linear(DIM, DIM).double()
    nn.init.ones_(value.bias)
    module.cross_attention.value = value


def hooked(module):
    module.cross_attention.query.register_forward_hook(lambda *_: None)


def adapted(module):
    class Adapter(nn.Linear):
        def forward(self, tokens):
            return super().forward(tokens).cumsum(dim=-1)

    adapter = Adapter(SEM_DIM, DIM).double()
    adapter.load_state_dict(module.sem_compress.state_dict())
    module.sem_compress = adapter


def own_forward(module):
    module.sem_expand.forward = lambda tokens: tokens.new_zeros(*tokens.shape[:-1], SEM_DIM)


@pytest.mark.parametrize("change", [hooked, adapted, own_forward, biased])
def test_parts_that_do_more_than_multiply_are_called(change, plainly, absorbed_calls):
    module, inputs = layer(), tokens(2, 6, 3)
    before = run(module, *inputs)
    assert len(absorbed_calls) == 1
    change(module)
    after = run(module, *inputs)
    assert len(absorbed_calls) == 1
    for a, b in zip(after, plainly(module, *inputs), strict=True):
        assert torch.equal(a, b)
    if change is not hooked:
        assert not torch.allclose(after[0], before[0])


@pytest.mark.parametrize("place", ["shared", "of each clip"])
def test_gradients_of_positions(place, plainly):
    module, inputs = layer(), tokens(2, 6, 3)
    places = [tensor.requires_grad_() for tensor in positions(place, 2, 6, 3)]

    def gradients(call):
        out = call(module, *inputs, *places)
        return torch.autograd.grad(out[0].square().sum() + out[1].square().sum(), places)

    torch.testing.assert_close(gradients(run), gradients(plainly))


def test_transforms_and_forward_mode():
    module, (semantic, motion) = layer(), tokens(2, 6, 3)
    semantic, motion = semantic.detach(), motion.detach()

    def of_semantic(tokens):
        return module(tokens, motion)[0]

    direction = torch.randn_like(semantic)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no forward mode
        _, product = torch.func.jvp(of_semantic, (semantic,), (direction,))
    step = 1e-6 * direction
    difference = (of_semantic(semantic + step) - of_semantic(semantic - step)) / 2e-6
    torch.testing.assert_close(product, difference, atol=1e-6, rtol=1e-5)
    one_by_one = torch.func.vmap(lambda s, m: module(s[None], m[None])[0][0])
    torch.testing.assert_close(one_by_one(semantic, motion), of_semantic(semantic))


def test_compiled():
    module, inputs = layer(), tokens(2, 6, 3)
    places = positions("shared", 2, 6, 3)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    expected, got = module(*inputs, *places), compiled(*inputs, *places)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b)
    wanted = [*inputs, *module.parameters()]
    for a, b in zip(
        torch.autograd.grad([out.square().sum() for out in expected], wanted),
        torch.autograd.grad([out.square().sum() for out in got], wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_exported(tmp_path):
    module = layer().eval()
    inputs = tuple(tensor.detach() for tensor in tokens(2, 6, 3))
    program = torch.export.export(module, inputs)
    for a, b in zip(program.module()(*inputs), module(*inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_nothing_to_attend_to(plainly):
    module = layer()
    semantic, motion = tokens(2, 6, 0)
    hidden = torch.zeros(2, 3, dtype=torch.bool)
    masked = module(semantic, tokens(2, 6, 3)[1], motion_mask=hidden)[0]
    for call in (run, plainly):
        out = call(module, semantic, motion)
        torch.testing.assert_close(out[0], masked)
        assert out[1].shape == (2, 0, MOT_DIM)
    assert module(semantic[:0], tokens(2, 6, 3)[1][:0])[0].shape == (0, 6, SEM_DIM)
