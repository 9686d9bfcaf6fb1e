"""Features on disk: written once, interrupted and continued, verified, read at the disk's speed.

A store is a folder::

    manifest.json                         what is in it: clips, labels, streams, fingerprint
    shards/00012-2f5c...e1.safetensors    the records of 64 clips; the file's checksum in its name

Which clips belong to which shard follows from the manifest alone. A shard is written beside its
name and then renamed, so it is there whole or not at all. What is missing is what remains to be
done, whoever has done the rest: any process on any machine can write any shard, and shards of equal
stores can be moved together.
"""

from gasmcast.feature_store.dataset import FeatureDataset
from gasmcast.feature_store.errors import DamagedRecordError, FeatureStoreError
from gasmcast.feature_store.manifest import Manifest, Stream
from gasmcast.feature_store.reader import FeatureStore
from gasmcast.feature_store.verify import Damage, verify_store
from gasmcast.feature_store.writer import FeatureStoreWriter, merge_stores

__all__ = [
    "Damage",
    "DamagedRecordError",
    "FeatureDataset",
    "FeatureStore",
    "FeatureStoreError",
    "FeatureStoreWriter",
    "Manifest",
    "Stream",
    "merge_stores",
    "verify_store",
]
