"""What of a mix is a function of the record alone, with granularity="record"."""

import jax
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.batch_mix_operator import BatchMixOperator, BatchMixOperatorConfig, FMix

NUMBERS = np.array([7, 2**31 + 5, 3, 11, 2**32 - 1, 5, 8, 13, 21, 34, 55], np.uint32)

# The first of the draws is compiled as users compile it: vectorised loops must not change a bit.
quickly = pytest.mark.usefixtures("quick_compiles")


def make_op(impl="threefry2x32", **options):
    options = {"mode": "both", "granularity": "record", "prob": 0.7, **options}
    config = BatchMixOperatorConfig(mix_info=True, **options)
    return BatchMixOperator(config, rngs=nnx.Rngs(jax.random.key(3, impl=impl)))


def drawn(op, numbers, valid=None, epoch=4):
    """By record, λ and region, or None where the record had no partner."""
    rows = len(numbers)
    data = {
        "image": np.zeros((rows, 9, 6, 1), np.float32),
        "label": np.ones((rows, 1), np.float32),
    }
    batch = Batch.from_arrays(
        data,
        record_index=np.asarray(numbers),
        epoch=epoch,
        valid_mask=None if valid is None else np.asarray(valid, bool),
    )
    info = {name: np.asarray(value) for name, value in op(batch).states["mix_info"].items()}
    region = info["box" if "box" in info else "mask"]
    return {
        int(number): (info["lam"][row].tobytes(), region[row].tobytes())
        for row, number in enumerate(numbers)
        if valid is None or valid[row]
    }


def assert_drawn_by_record(op, grouped):
    """The same in any batch size, order and place, with padding, and in groups."""
    whole = drawn(op, NUMBERS)
    assert len(set(whole.values())) > 3
    some = np.arange(11) % 3 > 0
    for numbers, valid in ((NUMBERS[::-1], None), (NUMBERS, some), (NUMBERS[[4, 1]], None)):
        part = drawn(op, numbers, valid)
        assert part == {number: whole[number] for number in part}
    # The last two of eleven rows in groups of three are a group of their own.
    assert drawn(grouped, NUMBERS) == whole


def test_draws_are_those_of_the_record_whatever_its_batch():
    """Ratio, box, switch and chance; vectorised loops of any length change no bit of them."""
    assert_drawn_by_record(make_op(), make_op(mix_group_size=3))


@quickly
@pytest.mark.parametrize(
    "options",
    [
        {"impl": "rbg", "mode": "mixup", "alpha": 0.3},
        pytest.param({"mode": "cutmix", "sampler": FMix()}, marks=pytest.mark.thorough),
    ],
    ids=["rbg", "masks"],
)
def test_draws_by_record_with_other_keys_and_regions(options):
    """Base keys of rbg, and masks in place of boxes, keep to the same rule."""
    assert_drawn_by_record(make_op(**options), make_op(**options, mix_group_size=3))


@quickly
def test_draws_differ_between_records_and_epochs():
    """No two records, and no two epochs of one, share a ratio."""
    op = make_op(mode="mixup", prob=1.0)
    epochs = [drawn(op, NUMBERS, epoch=epoch) for epoch in (0, 1)]
    ratios = [lam for epoch in epochs for lam, _ in epoch.values()]
    assert len(set(ratios)) == 22


@quickly
def test_views_are_drawn_apart_and_view_zero_as_none():
    """Copies of a record differ by their view; those of view 0 are what no view gives."""
    op = make_op(mode="mixup", prob=1.0)
    data = {"image": np.zeros((6, 2, 2, 1)), "label": np.ones((6, 1), np.float32)}
    batch = Batch.from_arrays(data, record_index=[4, 4, 4, 9, 9, 9], view=[0, 1, 2, 0, 1, 2])
    lam = np.asarray(op(batch).states["mix_info"]["lam"])
    assert len(set(lam)) == 6
    plain = np.asarray(op(batch.replace(view=None)).states["mix_info"]["lam"])
    np.testing.assert_array_equal(plain, lam[[0, 0, 0, 3, 3, 3]])


@quickly
def test_an_explicit_key_decides_all_and_a_dict_is_a_batch():
    """The same key gives the same mix of a dict, a batch and under jit; the stream stays."""
    data = {"image": np.arange(40.0).reshape(5, 8, 1), "label": np.eye(5, dtype=np.float32)}
    op = make_op(mode="mixup", spatial_axes=(1,))
    before = op.get_state()
    key = jax.random.PRNGKey(5)
    out = op(data, key=key)
    assert set(out) == {"image", "label", "mix_info"}
    for other in (jax.jit(op)(data, key=key), op(Batch.from_arrays(data), key=key)):
        np.testing.assert_array_equal(other["image"], out["image"])
    assert not np.array_equal(op(data, key=jax.random.key(6))["image"], out["image"])
    jax.tree.map(np.testing.assert_array_equal, before["rngs"], op.get_state()["rngs"])


@quickly
def test_the_partner_is_still_drawn_for_the_batch():
    """The same two records are partners in one batch and not in another."""
    op = make_op(prob=1.0)
    data = {"image": np.zeros((40, 4, 4, 1)), "label": np.ones((40, 1), np.float32)}
    after = []
    for first in range(6):
        numbers = np.r_[first + 100, np.arange(39)]
        batch = Batch.from_arrays(data, record_index=numbers, epoch=0)
        partner = np.asarray(op(batch).states["mix_info"]["partner"])
        after.append(numbers[partner[1]])
    assert len(set(after)) > 3


@quickly
def test_one_draw_a_group_is_that_of_its_first_valid_record():
    """granularity="batch": groups of the same records draw the same wherever they are."""
    op = make_op(granularity="batch", prob=1.0, mix_group_size=4)
    whole = drawn(op, np.arange(12))
    assert drawn(op, np.arange(8, 12)) == {number: whole[number] for number in range(8, 12)}
    assert len(set(whole.values())) == 3


@quickly
def test_pairing_is_independent_of_the_ratio():
    """The first record's words are not those that pair the group."""
    op = make_op(mode="mixup", prob=1.0)
    data = {"image": np.zeros((3, 2, 2, 1)), "label": np.ones((3, 1), np.float32)}
    step = jax.jit(lambda batch: op(batch).states["mix_info"])
    lam, up = [], []
    for epoch in range(400):
        info = step(Batch.from_arrays(data, record_index=np.arange(3), epoch=epoch))
        lam.append(float(info["lam"][0]))
        up.append(int(info["partner"][0]) == 1)
    assert abs(np.corrcoef(lam, up)[0, 1]) < 4.5 / np.sqrt(400)
