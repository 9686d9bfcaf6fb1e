"""What can be wrong with a feature store."""


class FeatureStoreError(Exception):
    """A store cannot be opened, continued, written or read; the message says why."""


def not_written(error: OSError) -> FeatureStoreError:
    """What a file that cannot be written means for the store."""
    return FeatureStoreError(
        f"{error.filename} could not be written: {error.strerror}; what is in the store is whole, "
        "and the same command goes on from there"
    )


class DamagedRecordError(FeatureStoreError):
    """The features of a clip are missing or damaged on disk.

    Args:
        clip_id: The clip.
        shard: The shard file that holds it, or should.
        reason: A phrase saying what is wrong.
    """

    def __init__(self, clip_id: str, shard: str, reason: str) -> None:
        # All arguments go to Exception, so that the error survives pickling between processes.
        super().__init__(clip_id, shard, reason)
        self.clip_id = clip_id
        self.shard = shard
        self.reason = reason

    def __str__(self) -> str:
        return f"clip {self.clip_id!r} in shard {self.shard}: {self.reason}"
