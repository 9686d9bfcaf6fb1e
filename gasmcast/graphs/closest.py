"""The closest sources of each target, ties by index."""

import torch
from torch import Tensor


def closest(candidates: Tensor, closeness: Tensor, count: int | Tensor) -> Tensor:
    """Of each target's candidate sources, the ``count`` closest.

    Ties go to the smaller source index, on every device: of several sources exactly as close as the
    last that has room, the first ones are taken, whatever order ``topk`` gives them.

    Args:
        candidates: Bool [b, m, n].
        closeness: [b, m, n], larger is closer, finite.
        count: At least 0; one number, or one for each target, [b, m].

    Returns:
        Bool [b, m, n], a subset of ``candidates``.
    """
    if isinstance(count, int):
        count = min(count, candidates.size(-1))
    # Counting in int32 is many times faster than in sum's default of int64.
    crowded = candidates.sum(dim=-1, dtype=torch.int32) > count
    closeness, candidates = torch.broadcast_tensors(closeness, candidates)
    count = torch.as_tensor(count, device=candidates.device).expand(candidates.shape[:-1])
    crowded = crowded.expand_as(count)
    if bool(crowded.all()):
        return _closest_of_many(candidates, closeness, count)
    kept = candidates.clone()
    if bool(crowded.any()):
        kept[crowded] = _closest_of_many(candidates[crowded], closeness[crowded], count[crowded])
    return kept


def _closest_of_many(candidates: Tensor, closeness: Tensor, room: Tensor) -> Tensor:
    """The closest, for targets that have more candidates than room."""
    if not candidates.numel():
        return candidates
    ranked = torch.where(candidates, closeness, -torch.inf)
    room = room.unsqueeze(-1)
    top = ranked.topk(max(int(room.max()), 1), dim=-1).values
    last = top.gather(-1, (room - 1).clamp_(min=0).long()).masked_fill_(room == 0, torch.inf)
    chosen = ranked >= last
    tied = chosen.sum(dim=-1, dtype=torch.int32) > room.squeeze(-1)  # with the last that has room
    if bool(tied.any()):
        ranked, last, room = ranked[tied], last[tied], room[tied]
        above, level = ranked > last, ranked == last
        room = room - above.sum(dim=-1, keepdim=True, dtype=torch.int32)
        chosen[tied] = above | (level & (level.cumsum(dim=-1, dtype=torch.int32) <= room))
    return chosen
