"""Streaming statistics against NumPy in float64."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from datarax.core.config import DataraxModuleConfig
from datarax.core.element_batch import Batch, Element
from datarax.core.module import DataraxModule
from datarax.core.statistics import RunningStatistics, batch_statistics, source_statistics

ORACLES = {
    "mean": np.mean,
    "variance": np.var,
    "std": np.std,
    "minimum": np.min,
    "maximum": np.max,
}
PLACES = {"host": np.asarray, "device": jnp.asarray}
on_each = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)


def check(result, values, axes=None, rtol=1e-6):
    """Compares one field's result with float64 arithmetic on the same values."""
    wide = np.asarray(values, np.float64)
    axes = tuple(range(wide.ndim)) if axes is None else axes
    assert float(result["count"]) == np.prod([wide.shape[axis] for axis in axes])
    for name, oracle in ORACLES.items():
        got = np.asarray(result[name], np.float64)
        np.testing.assert_allclose(got, oracle(wide, axis=axes), rtol=rtol, err_msg=name)


def same(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


def normal(*shape, offset=0.0, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape, np.float32)
    return values + np.float32(offset)


LARGE = {
    "offset 1e4": lambda: normal(10_000_000, offset=1e4),
    "skewed": lambda: np.random.default_rng(1).standard_exponential(10_000_000, np.float32),
}
# What needs the fast arithmetic of large sums comes first, and the others are compiled quickly.
quickly = pytest.mark.usefixtures("quick_compiles")


@on_each
@pytest.mark.parametrize(
    "make",
    [LARGE["offset 1e4"], pytest.param(LARGE["skewed"], marks=pytest.mark.thorough)],
    ids=LARGE,
)
def test_ten_million_values_agree_with_float64(place, make):
    """One huge batch is within 1e-6 of float64, where plain float32 sums are not."""
    values = make()
    check(batch_statistics({"x": place(values)})["x"], values)


def test_ten_million_values_in_ten_thousand_updates_agree_with_float64():
    """Nothing accumulates over ten thousand updates inside one lax.scan."""
    values = normal(10_000_000, offset=1e4)
    start = RunningStatistics.create({"x": values})

    @jax.jit
    def whole(start, batches):
        return jax.lax.scan(lambda all_, x: (all_.update({"x": x}), None), start, batches)[0]

    check(whole(start, values.reshape(10_000, 1000)).result()["x"], values)


def test_variance_far_below_the_mean_is_exact():
    """Three ones over ten million times 1e6, where a mean in float32 is off by 0.03."""
    values = np.full(10_000_000, 1e6, np.float32)
    values[[7, 1_000_000, -1]] += 1
    check(batch_statistics(jnp.asarray(values)), values, rtol=1e-9)


def test_many_small_host_updates_agree_with_float64():
    """The host state is rounded at each update, yet a thousand updates stay within 1e-9."""
    values = normal(10_000, offset=1e4)
    statistics = RunningStatistics.create({"x": values})
    for batch in values.reshape(1000, 10):
        statistics = statistics.update({"x": batch})
    check(statistics.result()["x"], values, rtol=1e-9)


@quickly
@on_each
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        (np.uint8, 0, 255),
        pytest.param(np.int8, -128, 127, marks=pytest.mark.thorough),
        pytest.param(np.uint16, 0, 65535, marks=pytest.mark.thorough),
        pytest.param(np.int32, 2**30, 2**30 + 50, marks=pytest.mark.thorough),
        (np.int32, -(2**31), 2**31 - 1),
        (np.uint32, 2**32 - 1000, 2**32 - 1),
        (ml_dtypes.bfloat16, -3, 300),
        pytest.param(np.float16, 0, 2000, marks=pytest.mark.thorough),
        (np.bool_, 0, 1),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_dtype_enters_without_rounding(place, dtype, low, high):
    """Means are those of the exact values; extremes are exact and keep the dtype."""
    values = np.random.default_rng(0).integers(low, high, 5000, endpoint=True).astype(dtype)
    result = batch_statistics(place(values))
    wide = values.astype(np.float64)
    np.testing.assert_allclose(result["mean"], wide.mean(), rtol=1e-12)
    np.testing.assert_allclose(result["variance"], wide.var(), rtol=1e-6)
    for name, oracle in (("minimum", wide.min()), ("maximum", wide.max())):
        assert result[name].dtype == (np.uint8 if dtype == np.bool_ else dtype)
        assert np.float64(result[name]) == oracle


@quickly
@on_each
def test_constant_values_have_no_variance(place):
    """The variance of equal values is 0, not the square of a rounding error, nor below."""
    result = batch_statistics(place(np.full(30_001, 0.1, np.float32)))
    assert result["variance"] == 0
    assert result["mean"] == np.float32(0.1)


@quickly
@on_each
def test_counts_stay_exact_beyond_32_bits(place):
    """Adding one value to 2**33 + 2**13 of them is still seen, where float32 and uint32 fail."""
    one = RunningStatistics.create(np.ones(1, np.float32)).update(place(np.ones(1, np.float32)))
    many = one.update(place(np.zeros(2**20, np.float32)))
    for _ in range(13):
        many = many.merge(many)
    assert many.result()["count"] == 2**33 + 2**13
    assert many.merge(one).result()["count"] == 2**33 + 2**13 + 1


@quickly
@on_each
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e38], ids=["nan", "inf", "huge"])
def test_padding_has_no_influence(place, junk):
    """Rows that are not valid change no bit of the result, whatever they hold."""
    images = normal(6, 4, 4, 3, offset=2)
    mask = np.array([True, False, True, True, False, False])
    start = RunningStatistics.create({"image": images}, axes=(0, 1, 2))
    results = []
    for fill in (junk, 0.0):
        images[~mask] = fill
        results.append(start.update({"image": place(images)}, place(mask)).result())
    same(*results)
    check(results[0]["image"], images[mask], (0, 1, 2))


MASKED = {
    "Batch": lambda data, mask: Batch.from_arrays(data, valid_mask=mask),
    "as_dict": lambda data, mask: Batch.from_arrays(data, valid_mask=mask).as_dict(),
}


@quickly
@on_each
@pytest.mark.parametrize("make", MASKED.values(), ids=MASKED)
def test_mask_of_the_batch_and_the_given_one_both_count(place, make):
    """A row counts if the batch says it is valid and the argument says so too."""
    values = np.float32([1, 2, 4, 8])
    batch = make({"x": place(values)}, place(np.array([True, True, True, False])))
    start = RunningStatistics.create(batch)
    check(start.update(batch).result()["x"], values[:3])
    given = place(np.array([True, False, True, True]))
    check(start.update(batch, given).result()["x"], values[[0, 2]])


@quickly
@on_each
def test_nothing_valid_changes_nothing(place):
    """A batch without valid rows, or without rows, leaves every bit of the statistics."""
    values = place(normal(8))
    for before in (
        RunningStatistics.create(values),
        RunningStatistics.create(values).update(values),
    ):
        same(before.update(values, np.zeros(8, bool)), before)
        same(before.update(values[:0]), before)


@pytest.mark.parametrize(
    ("dtype", "least", "greatest"),
    [(np.float32, -np.inf, np.inf), (np.uint8, 0, 255)],
    ids=["float32", "uint8"],
)
def test_result_of_nothing(dtype, least, greatest):
    """Without values the count is 0, moments are NaN, extremes where min and max start."""
    result = RunningStatistics.create(np.zeros((2, 3), dtype), axes=(0,)).result()
    assert result["count"] == 0
    for name in ("mean", "variance", "std"):
        np.testing.assert_array_equal(result[name], np.full(3, np.nan))
    np.testing.assert_array_equal(result["minimum"], np.full(3, greatest, dtype))
    np.testing.assert_array_equal(result["maximum"], np.full(3, least, dtype))


@quickly
@on_each
def test_valid_nan_is_not_hidden(place):
    """A NaN in a valid row makes that channel NaN, and only that one."""
    values = normal(4, 2)
    values[2, 1] = np.nan
    result = batch_statistics(place(values), axes=(0,))
    check(jax.tree.map(lambda leaf: leaf[..., 0] if leaf.ndim else leaf, result), values[:, 0])
    assert all(np.isnan(result[name][1]) for name in ORACLES)


@quickly
@on_each
@pytest.mark.parametrize("cut", [0, 40], ids=lambda cut: f"cut {cut}")
def test_merged_parts_equal_the_whole(place, cut):
    """Statistics of two parts, either of which may be empty, merge to those of all values."""
    values = normal(100, 3, offset=50)
    start = RunningStatistics.create(values, axes=(0,))
    first, second = start.update(place(values[:cut])), start.update(place(values[cut:]))
    check(first.merge(second).result(), values, (0,))
    check(second.merge(first).result(), values, (0,))


@quickly
def test_host_and_device_parts_merge():
    """What was counted on the host and on a device goes together, in both orders of events."""
    values = normal(64, offset=50)
    start = RunningStatistics.create(values)
    host, device = values[:20], jnp.asarray(values[20:])
    check(start.update(host).merge(start.update(device)).result(), values)
    check(start.update(device).update(host).result(), values)
    check(start.update(host).update(device).result(), values)


def test_update_leaves_the_original_alone():
    """Statistics are values: an update returns new ones."""
    start = RunningStatistics.create(np.ones(3, np.float32))
    start.update(np.ones(3, np.float32))
    assert start.result()["count"] == 0


@quickly
def test_one_trace_serves_all_batches_of_a_shape():
    """Masks, values and what was counted before do not retrace a jitted update."""
    traces = []

    @jax.jit
    def update(statistics, batch):
        traces.append(None)
        return statistics.update(batch)

    values = normal(5, 8, 2)
    statistics = RunningStatistics.create({"x": values[0]})
    for number, part in enumerate(values):
        mask = np.arange(8) >= number
        statistics = update(statistics, Batch.from_arrays({"x": part}, valid_mask=mask))
    assert len(traces) == 1
    check(statistics.result()["x"], np.concatenate([part[n:] for n, part in enumerate(values)]))


@quickly
def test_result_inside_a_trace():
    """A traced result is float32 of the same values, fit to normalise with."""
    values = normal(32, 3, offset=7)

    @jax.jit
    def normalised(x):
        result = batch_statistics(x, axes=(0,))
        return result, (x - result["mean"]) / result["std"]

    result, scaled = normalised(values)
    assert {leaf.dtype for leaf in result.values()} == {np.dtype(np.float32)}
    check(result, values, (0,))
    np.testing.assert_allclose(np.mean(scaled, 0), np.zeros(3), atol=1e-6)


def eight_devices():
    return Mesh(np.array(jax.devices()[:8]), ("data",))


@quickly
def test_psum_combines_devices():
    """Each of eight devices counts its rows, unevenly valid; all end with the same."""
    images = normal(32, 4, 4, 3, offset=1e3)
    mask = np.arange(32) % 5 < 2
    mask[:4] = False  # the first device has nothing
    images[~mask] = np.nan
    start = RunningStatistics.create({"image": images}, axes=(0, 1, 2))

    @partial(
        jax.shard_map,
        mesh=eight_devices(),
        in_specs=(PartitionSpec("data"), PartitionSpec("data")),
        out_specs=PartitionSpec(),
    )
    def whole(images, mask):
        return start.update({"image": images}, mask).psum("data")

    check(jax.jit(whole)(images, mask).result()["image"], images[mask], (0, 1, 2))


@quickly
def test_psum_over_two_axes_adds_exact_counts():
    """A mesh of 4 x 2 devices combines over both axes, and counts above 2**24 stay exact."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "model"))
    values = np.zeros(8, np.float32)
    start = RunningStatistics.create(values).update(values[:1])
    for _ in range(24):
        start = start.merge(start)
    start = start.update(values[:1])

    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=PartitionSpec(("data", "model")),
        out_specs=PartitionSpec(),
    )
    def whole(x):
        return start.update(x).psum(("data", "model"))

    assert jax.jit(whole)(values).result()["count"] == 8 * (2**24 + 2)


@quickly
def test_sharded_batch_is_reduced_where_it_lies():
    """A jitted update of a batch over eight devices is right and gathers no image."""
    images = normal(64, 8, 8, 3, offset=1e3)
    sharded = jax.device_put(images, NamedSharding(eight_devices(), PartitionSpec("data")))
    start = RunningStatistics.create({"image": images}, axes=(0, 1, 2))
    compiled = jax.jit(lambda s, x: s.update({"image": x})).lower(start, sharded).compile()
    check(compiled(start, sharded).result()["image"], images, (0, 1, 2))
    for line in compiled.as_text().splitlines():
        assert not ("all-gather" in line and "8,8,3]" in line), line


@quickly
def test_doubles_on_a_device_keep_their_digits():
    """In 64-bit mode, device float64 and int64 enter with 48 bits, not as float32."""
    with jax.enable_x64(True):
        values = 1e9 + np.random.default_rng(0).standard_normal(1000)
        check(batch_statistics(jnp.asarray(values)), values, rtol=1e-6)
        whole = np.int64(2**40) + np.arange(1000)
        result = batch_statistics(jnp.asarray(whole))
        check(result, whole, rtol=1e-6)
        assert result["minimum"] == 2**40


@quickly
def test_equal_doubles_have_no_negative_variance():
    """The rounding of doubles that are no float32 does not lead to the root of a negative."""
    with jax.enable_x64(True):
        result = batch_statistics(jnp.full((1001, 50), np.arange(1, 51) / 3), axes=(0,))
    assert np.all(result["variance"] >= 0)
    assert np.all(result["std"] < 1e-12)


@quickly
def test_axes_for_each_field():
    """Named fields have their own axes, by dotted path; the others are reduced to scalars."""
    data = {
        "camera": {"left": normal(4, 5, 6, 3)},
        "depth": normal(4, 5),
        "label": np.arange(4, dtype=np.int32),
    }
    result = batch_statistics(data, axes={"camera.left": (0, 1, -2), "depth": (0,)})
    check(result["camera"]["left"], data["camera"]["left"], (0, 1, 2))
    check(result["depth"], data["depth"], (0,))
    check(result["label"], data["label"])


@pytest.mark.parametrize(
    ("axes", "error", "match"),
    [
        ({"img": (0,)}, KeyError, r"'img', which is no field; there are \['image'\]"),
        ((1, 2), ValueError, r"axes of image must be .* batch axis 0 among them, got \(1, 2\)"),
        ((0, 4), ValueError, r"axes of its shape \(2, 4, 4, 3\)"),
        ((0, -4), ValueError, "must be different axes"),
    ],
    ids=["unknown field", "no batch axis", "too high", "twice"],
)
def test_bad_axes_are_refused(axes, error, match):
    """Axes must be those of a field that there is, with the batch axis, each once."""
    with pytest.raises(error, match=match):
        RunningStatistics.create({"image": np.zeros((2, 4, 4, 3))}, axes=axes)


@on_each
@pytest.mark.parametrize(
    ("data", "mask", "error", "match"),
    [
        ({"y": np.zeros((2, 3), np.float32)}, None, ValueError, r"the fields \['x'\], got \['y'\]"),
        ({"x": np.zeros((2, 4), np.float32)}, None, ValueError, r"x must have 2 axes.* \(2, 4\)"),
        ({"x": np.zeros((2, 3, 1), np.float32)}, None, ValueError, r"x must have 2 axes"),
        ({"x": np.zeros((2, 3), np.int32)}, None, TypeError, "x must be float32, .* got int32"),
        ({"x": np.float32(1)}, None, ValueError, "x must have a batch axis, got a scalar"),
        ({"x": np.zeros((2, 3), np.float32)}, np.ones(3, bool), ValueError, "2 rows of x, got 3"),
        ({"x": np.zeros((2, 3), np.float32)}, np.ones(2), TypeError, "must be bool, got float"),
    ],
    ids=["field", "size", "rank", "dtype", "scalar", "mask rows", "mask dtype"],
)  # fmt: skip
def test_bad_batches_are_refused(place, data, mask, error, match):
    """What does not suit the statistics is an error that names the field."""
    start = RunningStatistics.create({"x": np.zeros((2, 3), np.float32)}, axes=(0,))
    with pytest.raises(error, match=match):
        start.update(jax.tree.map(place, data), None if mask is None else place(mask))


@pytest.mark.parametrize(
    ("leaf", "error", "match"),
    [
        (np.zeros(2, np.complex64), TypeError, "x must be real numbers or bools, got complex64"),
        (np.array(["a"]), TypeError, "x must be an array of numbers"),
        (np.float32(0), ValueError, "x must have a batch axis"),
        (np.array([2**40]), ValueError, "do not fit the int32"),
    ],
    ids=["complex", "strings", "scalar", "wide integers"],
)
def test_fields_must_be_batches_of_numbers(leaf, error, match):
    """Fields without statistics are refused at construction, not skipped."""
    with pytest.raises(error, match=match):
        RunningStatistics.create({"x": leaf})


def test_a_record_is_no_batch():
    """An Element, which would be reduced as if its first axis were the batch, is refused."""
    with pytest.raises(TypeError, match=r"got an Element; use Batch\.from_elements"):
        batch_statistics(Element({"x": np.zeros(3)}))


def test_merge_refuses_other_fields():
    """Statistics over other axes, which broadcasting might hide, do not merge."""
    image = {"x": np.zeros((2, 3), np.float32)}
    with pytest.raises(ValueError, match=r"float32\[\] over axes \(0, 1\) and .*float32\[3\]"):
        RunningStatistics.create(image).merge(RunningStatistics.create(image, axes=(0,)))


def test_batch_statistics_serve_as_batch_stats_fn():
    """A module computes, and keeps, the statistics of the valid rows of the batch it is given."""
    values = np.float32([[1, 5], [3, 7], [100, 100]])
    batch = Batch.from_arrays({"x": values}, valid_mask=np.array([True, True, False]))
    config = DataraxModuleConfig(batch_stats_fn=partial(batch_statistics, axes=(0,)))
    module = DataraxModule(config)
    check(module.compute_statistics(batch)["x"], values[:2], (0,))
    check(module.get_statistics()["x"], values[:2], (0,))


SOURCES = {
    "batches": lambda x: [
        Batch.from_arrays({"x": x[:4]}),
        Batch.from_arrays({"x": x[3:7]}, valid_mask=np.array([False, True, True, True])),
    ],
    "arrays": lambda x: ({"x": part} for part in (x[:2], x[2:])),
    "elements": lambda x: [Element({"x": each}) for each in x],
    "device elements": lambda x: [Element({"x": jnp.asarray(each)}) for each in x],
}


@quickly
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_whole_source(make):
    """Batches, their arrays and single records of the same values have the same statistics."""
    values = normal(7, 4, 3)
    check(source_statistics(make(values), axes=(0, 1))["x"], values, (0, 1))


def test_whole_source_of_plain_records():
    """With records=True, a dict is one record, scalars included."""
    records = [{"x": [float(number)], "y": number} for number in range(5)]
    result = source_statistics(records, records=True)
    check(result["y"], np.arange(5))


def test_source_that_yields_nothing_is_refused():
    """A used-up iterator is an error, not statistics without fields."""
    with pytest.raises(ValueError, match="must yield at least one batch or record, got none"):
        source_statistics(iter(()))


def test_progress_bar_only_on_request(capsys):
    """The bar counts what the source yields, on stderr; without it nothing is printed."""
    source = [Element({"x": 1.0})] * 3
    quiet = source_statistics(source)
    assert capsys.readouterr() == ("", "")
    same(source_statistics(source, progress=True), quiet)
    assert "3/3" in capsys.readouterr().err


def test_progress_bar_without_tqdm_names_the_extra(monkeypatch):
    """Without the extra, the error gives the command that installs it."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r'pip install "datarax-core\[progress\]"'):
        source_statistics([Element({"x": 1.0})], progress=True)


def test_statistics_of_nothing_take_the_fields_of_the_first_batch():
    """Without create, the first batch says which fields there are; merging with nothing is free."""
    nothing = RunningStatistics()
    assert nothing.result() == {}
    batch = {"x": np.float32([1, 3]), "y": np.int32([5, 7])}
    some = nothing.update(batch)
    assert some.result()["x"]["mean"] == 2
    assert some.result()["y"]["maximum"] == 7
    assert nothing.merge(some) is some
    assert some.merge(nothing) is some
    with pytest.raises(ValueError, match="psum needs fields, got statistics of nothing"):
        nothing.psum("data")
