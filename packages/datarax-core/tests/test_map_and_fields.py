"""`MapOperator` and `MultiModalOperator`: functions and operators of single fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import randomness
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    MapOperator,
    MapOperatorConfig,
    MultiModalOperator,
    MultiModalOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


def halved(x):
    return x.astype(jnp.float32) / 2


def over(*fields, fn=halved):
    return MapOperator(MapOperatorConfig(fields=fields or None), fn=fn)


def records():
    return Batch.from_arrays(
        {
            "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
            "views": {"a": np.int32([1, 2]), "b": np.int32([3, 4])},
            "label": np.arange(2, dtype=np.int32),
        },
        record_index=[3, 8],
    )


def test_named_fields_are_mapped():
    """Dotted paths and whole groups of fields are; what is not named stays the same object."""
    batch = records()
    out = over("image", "views.b")(batch)
    np.testing.assert_array_equal(out["image"], np.arange(6).reshape(2, 3) / 2)
    np.testing.assert_array_equal(out["views"]["b"], [1.5, 2])
    assert out["views"]["a"] is batch["views"]["a"]
    assert out["label"] is batch["label"]
    np.testing.assert_array_equal(over("views")(batch)["views"]["a"], [0.5, 1])


def test_all_fields_are_mapped_and_the_spec_says_so():
    """Without names, every array of the data."""
    op, batch = over(), records()
    out = op(batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(out.data)} == {np.dtype(np.float32)}
    record = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch.data)
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), out.data)
    assert op.output_spec(record) == wanted


def test_a_module_is_learned():
    """The gradient of a module's parameter reaches it through the operator."""
    op = over("x", fn=nnx.Linear(2, 1, rngs=nnx.Rngs(0)))
    batch = Batch.from_arrays({"x": np.float32([[1, 2], [3, 4]])})
    grads = nnx.jit(nnx.grad(lambda op: op(batch)["x"].sum()))(op)
    np.testing.assert_array_equal(grads["fn"]["kernel"].get_value(), [[4], [6]])


def test_a_missing_field_or_result_is_an_error():
    """Each says which field."""
    with pytest.raises(KeyError, match=r"no field 'views.c'.*views.a"):
        over("views.c")(records())
    with pytest.raises(TypeError, match=r"must return an array, got NoneType for .*'views.a'"):
        over("views", fn=lambda x: None)(records())


class Noise(OperatorModule):
    """Adds random bits to one field."""

    def __init__(self, field, rngs, target=None):
        super().__init__(OperatorConfig(stochastic=True), rngs=rngs)
        self.field, self.target = field, target or field

    def generate_random_params(self, rng, data_shapes):
        assert list(data_shapes) == [self.field]
        return randomness.random_words(rng, (data_shapes[self.field][0],))

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return {**data, self.target: data[self.field] + random_params}, state, metadata


class OtherNoise(Noise):
    """The same under another name."""


def pair(kind=Noise, *, shared, chained=False, seed=0):
    rngs = nnx.Rngs(seed)
    first, second = Noise("a", rngs), kind("b", rngs)
    if chained:
        second = CompositeOperatorModule(CompositeOperatorConfig(), operators=[second])
    return MultiModalOperator(
        MultiModalOperatorConfig(shared_draws=shared),
        operators={"a": first, "b": second},
        rngs=nnx.Rngs(seed + 1),
    )


def zeros(**fields):
    empty = {name: np.zeros(4, np.uint32) for name in "abc"}
    return Batch.from_arrays({**empty, **fields}, record_index=np.arange(4))


@pytest.mark.parametrize("numbered", [True, False], ids=["record_index", "no index"])
def test_draws_are_shared_or_not(numbered):
    """Operators of any class draw the same numbers from a shared key, others never."""
    batch = zeros() if numbered else zeros().replace(record_index=None)
    for kind in (Noise, OtherNoise):
        out = pair(kind, shared=True)(batch)
        np.testing.assert_array_equal(out["a"], out["b"])
        assert len(set(np.asarray(out["a"]).tolist())) == 4
    out = pair(shared=False)(batch)
    assert not set(np.asarray(out["a"]).tolist()) & set(np.asarray(out["b"]).tolist())
    assert out["c"] is batch["c"]
    np.testing.assert_array_equal(out["a"], Noise("a", nnx.Rngs(0))(only_a(batch))["a"])


def only_a(batch):
    return batch.replace(data={"a": batch["a"]})


def test_deterministic_members_work_in_evaluation_mode():
    """With shared draws too, what is not stochastic goes on."""
    op = MultiModalOperator(
        MultiModalOperatorConfig(shared_draws=True),
        operators={"a": Noise("a", nnx.Rngs(0)), "b": over("b")},
        rngs=nnx.Rngs(1),
    )
    batch = zeros(b=np.uint32([2, 4, 6, 8]))
    assert (np.asarray(op(batch)["a"]) != 0).all()
    op.eval()
    out = op(batch)
    assert out["a"] is batch["a"]
    np.testing.assert_array_equal(out["b"], [1, 2, 3, 4])
    assert op.get_operation_stats() == {"applied_count": 8, "skipped_count": 0}


def test_an_operator_cannot_overwrite_what_it_does_not_see():
    """A new field is fine, another's field is not, in a call and in the spec."""

    def build(target):
        return MultiModalOperator(
            MultiModalOperatorConfig(),
            operators={"a": Noise("a", nnx.Rngs(0), target)},
        )

    spec = dict.fromkeys("abc", jax.ShapeDtypeStruct((), np.uint32))
    assert build("d")(zeros()).keys() == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match=r"operator for 'a' .* writes 'c', which the record has"):
        build("c")(zeros())
    rename = MultiModalOperator(
        MultiModalOperatorConfig(),
        operators={"a": MapOperator(MapOperatorConfig(fields=("a",)), fn=halved)},
    )
    assert rename.output_spec(spec)["a"].dtype == np.float32
    with pytest.raises(KeyError, match="no field 'a'"):
        rename.output_spec({"b": spec["b"]})


def test_fields_within_fields_are_found():
    """Dotted paths name the field, and an operator sees it in its place."""
    op = MultiModalOperator(
        MultiModalOperatorConfig(), operators={"views.a": over("views.a"), "image": over()}
    )
    batch = records()
    out = op(batch)
    np.testing.assert_array_equal(out["views"]["a"], [0.5, 1])
    assert out["views"]["b"] is batch["views"]["b"]
    assert out["image"].dtype == np.float32
    with pytest.raises(ValueError, match=r"'views.a' is part of 'views'; chain"):
        MultiModalOperator(
            MultiModalOperatorConfig(), operators={"views": over(), "views.a": over()}
        )
