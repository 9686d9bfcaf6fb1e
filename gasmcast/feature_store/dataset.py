"""The records of a store as samples to train on and to evaluate."""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from gasmcast.feature_store.errors import DamagedRecordError, FeatureStoreError
from gasmcast.feature_store.reader import FeatureStore
from gasmcast.seeds import derive_seed


class FeatureDataset(Dataset):
    """Samples of a store, in the form of :class:`~gasmcast.ClipDataset`'s.

    For evaluation ``dataset[index]`` holds all views, ``semantic`` [V, P, D] and ``motion``
    [V, S, D]. For training ``dataset[epoch, index]`` holds one view, drawn by (seed, epoch, index)
    alone, without V. Both hold ``label`` and ``index``. A clip without features, or whose record is
    damaged, does not raise: its sample holds ``index`` and the ``error``.

    Args:
        store: The store; it must be complete.
        training: Give views drawn at random.
        seed: Of these draws.

    Raises:
        FeatureStoreError: Shards are missing.
        ValueError: When asked for, a sample that is not counted as said above.
    """

    def __init__(self, store: FeatureStore, *, training: bool = False, seed: int = 0) -> None:
        if store.missing:
            raise FeatureStoreError(
                f"{store.folder} lacks {len(store.missing)} of its {store.manifest.num_shards} "
                f"shards, the first of them {store.missing[0]}: extract them first"
            )
        self.store = store
        self.training = training
        self.seed = seed

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.store.classes

    @property
    def ids(self) -> tuple[str, ...]:
        """The clips, in order."""
        return self.store.ids

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What the features depend on besides the clips."""
        return self.store.fingerprint

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(key, tuple) != self.training:
            expected = "(epoch, index) in training" if self.training else "an index in evaluation"
            raise ValueError(f"a sample is asked for by {expected}, got {key!r}")
        view, index = None, key
        if self.training:
            epoch, index = key
            view = derive_seed(self.seed, epoch, index) % self.store.num_views
        try:
            record = self.store.read(index, view)
        except DamagedRecordError as error:
            return {"index": index, "error": str(error)}
        return {**record, "label": self.store.labels[index], "index": index}
