"""Modules whose weights may be used without calling the module."""

from torch import Tensor, nn

_HOOKS = ("forward_pre_hooks", "forward_hooks", "backward_pre_hooks", "backward_hooks")


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module does what its class does and no more.

    Not so a subclass, such as an adapter or a quantised layer in its place, and what somebody put a
    hook on or gave a forward of its own: they have to be called.
    """
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not any(getattr(module, f"_{hooks}") for hooks in _HOOKS)
    )


def is_plain_linear(module: nn.Module, *, bias: bool) -> bool:
    """Whether a module is a plain ``nn.Linear`` with or without a bias, of an ordinary matrix.

    A weight of another type of tensor, such as a quantised one, does more than it shows.
    """
    return (
        is_plain(module, nn.Linear)
        and type(module.weight) in (nn.Parameter, Tensor)
        and (module.bias is not None) == bias
    )
