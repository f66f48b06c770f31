"""What may be a leaf of a record or batch: native arrays of numbers, whatever they came as."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch, Element
from datarax.core.specs import as_leaf, as_leaves
from datarax.core.statistics import RunningStatistics, batch_statistics, source_statistics

SWAPPED = ">" if sys.byteorder == "little" else "<"


def entrances(array):
    """Every way of core by which an array of two rows comes in."""
    return {
        "from_arrays": lambda: Batch.from_arrays({"x": array})["x"],
        "states": lambda: Batch.from_arrays({"y": np.ones(2)}, states={"x": array}).states["x"],
        "from_elements": lambda: Batch.from_elements([Element({"x": row}) for row in array])["x"],
        "replace": lambda: Batch.from_arrays({"x": np.ones(2, np.float32)}).replace(
            data={"x": array}
        )["x"],
        "precomputed statistics": lambda: OperatorConfig(
            precomputed_stats={"x": array}
        ).precomputed_stats["x"],
    }


@pytest.mark.parametrize("code", ["f4", "f2", "i4", "u2", "c8", "f8", "i8"])
@pytest.mark.parametrize("entrance", entrances([]))
def test_arrays_of_another_byte_order_are_converted(code, entrance):
    """Values stay; JAX, which compiles for shape and dtype alone, reads them right."""
    native = np.arange(6).astype(code).reshape(2, 3) + np.ones((), code)
    double = jax.jit(lambda x: x + x)
    double(native)
    came = entrances(native.astype(SWAPPED + code))[entrance]()
    assert came.dtype.isnative
    assert came.dtype == native.dtype
    np.testing.assert_array_equal(double(came), 2 * native)


def test_statistics_of_another_byte_order_are_those_of_the_values():
    """On the host and where the next update is native."""
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    swapped = values.astype(SWAPPED + "f4")
    assert batch_statistics({"x": swapped})["x"]["mean"] == 2.5
    both = RunningStatistics().update({"x": swapped}).update({"x": values}).result()["x"]
    assert (both["mean"], both["maximum"]) == (2.5, 5)
    assert source_statistics([Element({"x": swapped})])["x"]["count"] == 6


MASKED = np.ma.masked_array(np.float32([[1, 2], [3, 999]]), mask=[[0, 0], [0, 1]])


@pytest.mark.parametrize("entrance", entrances([]))
def test_masked_entries_are_refused(entrance):
    """What lies under a mask is no data."""
    with pytest.raises(ValueError, match=r"\['x'\].* masked entries.*array.filled"):
        entrances(MASKED)[entrance]()


def test_a_masked_array_without_masked_entries_is_an_array():
    """It loses nothing."""
    leaf = as_leaf("x", MASKED[:1])
    assert type(leaf) is np.ndarray
    assert leaf.tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="x is a masked array"):
        batch_statistics({"x": MASKED})


REFUSED = {
    "longdouble": (
        np.ones(2, np.longdouble),
        TypeError,
        r"got ndarray of dtype .*astype\(np.float32",
    ),
    "long complex": (np.ones(2, np.clongdouble), TypeError, r"of dtype .*astype\(np.float32"),
    "void": (np.zeros(2, "V8"), TypeError, r"dtype \|V8; view the bytes as numbers"),
    "structured": (np.zeros(2, "i4,f4"), TypeError, "make each of its parts a field"),
    "dates": (np.zeros(2, "M8[s]"), TypeError, r"datetime64\[s\]; make it a number"),
    "strings": (np.array(["a", "b"]), TypeError, "strings and other Python objects belong in meta"),
    "objects": (np.array([None, {}]), TypeError, "dtype object; strings and other"),
    "float64 beyond float32": (np.array([1, -1e39]), ValueError, "finite values beyond float32"),
    "complex": (np.array([1, 1e39j]), ValueError, "finite values beyond complex64"),
    "int64 beyond int32": (np.array([1, 2**31]), ValueError, "int64 values from 1 to 2147483648"),
}


@pytest.mark.parametrize(("value", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_device_array_can_hold_is_refused(value, error, message):
    """The field is named, with what came and what to do."""
    with pytest.raises(error, match=rf"data\['a'\]\['x'\] (must be|has) .*{message}"):
        Batch.from_arrays({"a": {"x": value}, "b": np.ones(2)})
    with pytest.raises(error, match=message):
        RunningStatistics().update({"x": value})


@pytest.mark.parametrize(
    "values",
    [
        [np.nan, np.inf, -np.inf, 3.4028234e38],
        [-3.4028235e38, 1e-300, 0, 1],
        # Rounds to the largest float32.
        [float(np.finfo(np.float32).max) + 1e30, 0, 0, 0],
        [],
    ],
    ids=["not finite", "extreme", "rounded", "empty"],
)
def test_float64_that_fits_is_taken_as_it_is(values):
    """NaN and infinities are values like any other, and small numbers may become 0."""
    array = np.array(values, np.float64)
    assert as_leaf("x", array) is array


def test_64_bit_values_are_taken_as_they_are_under_x64():
    """Nothing is narrowed then."""
    with jax.enable_x64(True):
        for value in (1e300, 2**40, 2**63):
            array = np.array([value])
            assert as_leaf("x", array) is array
        with pytest.raises(TypeError, match="x must be an array of numbers"):
            as_leaf("x", np.ones(2, np.longdouble))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2, 3], np.array([1, 2, 3])),
        ([[1.5], [2.5]], np.array([[1.5], [2.5]])),
        ([True, False], np.array([True, False])),
        ([np.float32(1), np.float32(2)], np.float32([1, 2])),
        (range(2), np.array([0, 1])),
        (memoryview(b"ab"), np.uint8([97, 98])),
    ],
    ids=["ints", "nested", "bools", "scalars", "range", "memoryview"],
)
def test_lists_of_numbers_are_arrays(value, expected):
    """A list of numbers is a field; a list of arrays is a node of the pytree."""
    leaf = as_leaves("data", {"x": value, "y": [np.ones(1), np.ones(2)]})["x"]
    assert leaf.dtype == expected.dtype
    np.testing.assert_array_equal(leaf, expected)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([[1, 2], [3]], TypeError, r"data\['x'\] must be an array of numbers, got list"),
        ([1, 2**40], ValueError, r"data\['x'\] has int64 values from 1"),
        (["a"], TypeError, r"data\['x'\]\[0\] must be an array of numbers, got str"),
        ([1, "a"], TypeError, r"data\['x'\]\[1\] must be an array of numbers, got str"),
        (object(), TypeError, r"data\['x'\] must be an array of numbers, got object"),
    ],
    ids=["ragged", "large", "strings", "mixed", "object"],
)
def test_lists_of_anything_else_are_named(value, error, message):
    """The path leads to what is wrong."""
    with pytest.raises(error, match=message):
        as_leaves("data", {"x": value})


def test_leaves_of_every_kind_keep_their_identity_and_new_containers_are_made():
    """Arrays are neither copied nor moved; the caller's dicts stay the caller's."""
    data = {"a": np.ones(2, np.float32), "b": {"c": jnp.ones(2), "k": jax.random.key(0)}}
    data["d"] = np.ones(2, jnp.bfloat16)
    leaves = as_leaves("data", data)
    assert leaves is not data
    assert leaves["b"] is not data["b"]
    assert all(x is y for x, y in zip(*map(jax.tree.leaves, (leaves, data)), strict=True))


class Foreign:
    """A tensor that NumPy cannot read by itself."""

    def __init__(self, values, requires_grad=False):
        self.values, self.requires_grad = values, requires_grad

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no such dtype")

    def __dlpack__(self, **_):
        return self.values.__dlpack__()

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def test_what_numpy_cannot_read_comes_by_dlpack():
    """Still as a host array."""
    leaf = as_leaf("x", Foreign(np.float32([1, 2])))
    assert type(leaf) is np.ndarray
    assert leaf.tolist() == [1, 2]
    with pytest.raises(TypeError, match=r"x is a Foreign that requires gradients.*detach"):
        as_leaf("x", Foreign(np.float32([1, 2]), requires_grad=True))
    with pytest.raises(TypeError, match=r"x must be .* got Foreign, which cannot be read as one"):
        as_leaf("x", Foreign(np.array("a")))


def test_tensors_of_torch_are_read_where_they_are():
    """On the CPU, without a copy; bfloat16 too, which NumPy alone cannot read."""
    torch = pytest.importorskip("torch")
    tensor = torch.arange(4, dtype=torch.float32)
    leaf = as_leaf("x", tensor)
    assert leaf.ctypes.data == tensor.data_ptr()
    half = as_leaf("x", torch.tensor([1.5, 2.5], dtype=torch.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert half.tolist() == [1.5, 2.5]
    data = as_leaves("data", {"x": torch.ones(2, 3), "y": torch.tensor([1, 2]), "z": 1})
    assert [leaf.dtype.name for leaf in data.values()] == ["float32", "int64", "int64"]
    with pytest.raises(ValueError, match=r"data\['y'\] has int64 values"):
        as_leaves("data", {"y": torch.tensor([2**40])})


def test_tensors_with_gradients_are_refused():
    """The remedy is the one of torch."""
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"data\['x'\] .* requires gradients.*tensor.detach\(\)"):
        as_leaves("data", {"x": torch.ones(2, requires_grad=True)})
    sparse = torch.ones(2).to_sparse()
    with pytest.raises(TypeError, match=r"data\['x'\] must be an array of numbers, got Tensor"):
        as_leaves("data", {"x": sparse})


@pytest.mark.parametrize("name", ["valid_mask", "record_index", "view", "epoch"])
def test_masked_numbers_of_a_batch_are_refused(name):
    """What lies under a mask is no record's number, nor says whether a row is one."""
    kind = bool if name == "valid_mask" else np.uint32
    value = np.ma.masked_array(np.zeros(() if name == "epoch" else 2, kind), mask=True)
    with pytest.raises(ValueError, match=f"{name} is a masked array with masked entries"):
        Batch.from_arrays({"x": np.zeros(2, np.float32)}, **{name: value})
