"""The order of an epoch's records: a pure function of a key and the epoch."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Key, UInt32

KEY_WORDS = 4


def words_of_seed(words: int | Sequence[int]) -> UInt32[np.ndarray, "4"]:
    """The key that a seed, or the words of a random key, stands for."""
    return np.random.SeedSequence(words).generate_state(KEY_WORDS, np.uint32)


def words_of_key(key: Key[Array, ""]) -> UInt32[np.ndarray, "4"]:
    """The key that a JAX random key, threefry or rbg, stands for."""
    return words_of_seed(np.asarray(jax.random.key_data(key)).ravel().tolist())


def permutation(
    words: UInt32[np.ndarray, "4"], epoch: int, length: int
) -> UInt32[np.ndarray, "length"]:
    """A uniformly random order of `range(length)`, computed on the host.

    Only what NumPy promises never to change goes in (`SeedSequence` and the raw bits of Philox, not
    `Generator.permutation`), so that a checkpoint can be resumed under another NumPy.

    Args:
      words: the key.
      epoch: the number of the epoch.
      length: how many records there are.
    """
    bits = np.random.Philox(np.random.SeedSequence([*words.tolist(), epoch])).random_raw(length)
    # Random high bits with the record in the low ones: one sort of values, without ties.
    places = np.uint64(max(length - 1, 1).bit_length())
    low = (np.uint64(1) << places) - np.uint64(1)
    tagged = (bits & ~low) | np.arange(length, dtype=np.uint64)
    tagged.sort()
    return (tagged & low).astype(np.uint32)


def seed_of_epoch(words: UInt32[np.ndarray, "4"], epoch: int) -> int:
    """A seed of 32 bits for a shuffling that is not ours."""
    return int(np.random.SeedSequence([*words.tolist(), epoch]).generate_state(1, np.uint32)[0])
