"""Positions, of any number and extent, as vectors of a model's width."""

import torch
from torch import Tensor, nn


class FourierPositionEncoding(nn.Module):
    r"""Sines and cosines of the coordinates, mixed by a learned linear map.

    .. math::
        \pi(p) = W\, [\sin(2^{-k} p_c), \cos(2^{-k} p_c)]_{c,\; k = 0 \dots K-1}

    Wavelengths run from 6 to 201 units, so neighbouring patches or segments differ and far ones are
    told apart. There is no table: any number of tokens, at any positions, can be encoded.

    Args:
        position_dim: Coordinates d of a position.
        dim: Width D of the encoding.
        num_bands: Frequencies K.

    Shapes:
        - **positions:** [..., d]
        - **output:** [..., D]; the number 0 for ``None``, so that it can be added all the same

    Raises:
        ValueError: Positions that have not d coordinates.
    """

    def __init__(self, position_dim: int, dim: int, num_bands: int = 6):
        super().__init__()
        self.position_dim = position_dim
        self.register_buffer("frequencies", 0.5 ** torch.arange(num_bands), persistent=False)
        self.mix = nn.Linear(2 * position_dim * num_bands, dim, bias=False)

    def forward(self, positions: Tensor | None) -> Tensor | float:
        """Encode; see the class for equation and shapes."""
        if positions is None:
            return 0.0
        if positions.size(-1) != self.position_dim:
            raise ValueError(
                f"positions must be [..., {self.position_dim}], got {list(positions.shape)}"
            )
        angles = (positions.unsqueeze(-1) * self.frequencies).flatten(-2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.mix(waves.to(self.mix.weight.dtype))
