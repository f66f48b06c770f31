"""What batches, operators and configs show: a line in a terminal, pictures in a notebook."""

import base64
import re
import struct
import zlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core._png import png
from datarax.core._thumbnails import caption, channel_axis, thumbnails
from datarax.core.config import OperatorConfig
from datarax.core.element_batch import Batch
from datarax.operators import (
    CompositeOperatorConfig,
    CompositeOperatorModule,
    ElementOperator,
    ElementOperatorConfig,
)

pytestmark = pytest.mark.usefixtures("quick_compiles")


@dataclass(frozen=True)
class Stretched(OperatorConfig):
    factor: float = 1.0


@dataclass(frozen=True)
class Described(OperatorConfig):
    def __repr__(self):
        return "as its author wants"


def decoded(file):
    """The pixels of a PNG file without filters, and a check of all its checksums."""
    assert file[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    place, chunks = 8, {}
    while place < len(file):
        (length,) = struct.unpack(">I", file[place : place + 4])
        kind, content = file[place + 4 : place + 8], file[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", file[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        chunks[kind] = content
        place += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, {0: 1, 2: 3, 6: 4}[color])


def pictures(html):
    """The pictures of a page, decoded."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [decoded(base64.b64decode(text)) for text in found]


def photographs(rows=3, dtype=np.uint8):
    """Images `(rows, 8, 6, 3)` of random bytes."""
    return np.random.default_rng(0).integers(256, size=(rows, 8, 6, 3)).astype(dtype)


def add_one(element, key=None):
    return element.update_data({"x": element.data["x"] + 1})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_holds_the_pixels(channels):
    """What was written is what a decoder by the standard reads."""
    image = np.random.default_rng(0).integers(256, size=(5, 7, channels)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(image)), image)


@pytest.mark.parametrize(
    ("shape", "dtype", "axis"),
    [
        ((2, 8, 6, 3), np.uint8, 3),
        ((2, 1, 8, 8), np.float32, 1),
        ((2, 8, 6), np.bool_, 0),
        ((2, 8, 6), np.int32, 0),
        ((2, 8, 6), np.float32, None),
        ((2, 8, 6, 2), np.uint8, None),
        ((2, 8, 2, 3), np.uint8, None),
        ((2, 3), np.uint8, None),
        ((), np.uint8, None),
        ((2, 8, 6, 3), np.complex64, None),
    ],
)
def test_images_are_told_from_other_fields(shape, dtype, axis):
    """By channels in one of the two usual places; masks by dtypes that count."""
    assert channel_axis(np.zeros(shape, dtype)) == axis


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
def test_floats_from_0_to_1_are_shown_as_bytes(dtype):
    """Without a range of their own."""
    images = np.array([0, 0.5, 1, 1], dtype).reshape(1, 2, 2, 1)
    shown, own = thumbnails(images, 3)
    assert shown.ravel().tolist() == [0, 128, 255, 255]
    assert own is None


def test_other_values_go_from_the_lowest_to_the_highest():
    """NaN is black, infinities are at the ends."""
    images = np.array([-1, 3, 1, np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 6, 1)
    shown, own = thumbnails(images, 3)
    assert shown.ravel().tolist() == [0, 255, 128, 0, 255, 0]
    assert own == (-1, 3)


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_an_image_of_one_value_is_shown_too(value):
    """There is no range to divide by."""
    shown, _ = thumbnails(np.full((1, 4, 4, 3), value, np.float32), 3)
    assert (shown == 0).all()


def test_large_images_are_shown_small():
    """Every third pixel of 300."""
    images = np.arange(300 * 200, dtype=np.int32).astype(np.uint8).reshape(1, 300, 200, 1)
    shown, _ = thumbnails(images, 3)
    np.testing.assert_array_equal(shown, images[:, ::3, ::3])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int32(7), "label 7"),
        (np.array([7]), "label 7"),
        (np.float32(0.25), "label 0.25"),
        (np.float32([0.25, 0, 0.75]), "label 2: 0.75, 0: 0.25"),
        (np.float32([0, 1, 0]), "label 1: 1.00"),
        (np.float32([0.5, 0.1]), None),
        (np.float32([np.nan, 1]), None),
        (np.int32([1, 0]), None),
        (np.zeros((2, 2)), None),
        (np.zeros(0), None),
    ],
)
def test_labels_stand_under_the_picture(value, text):
    """Numbers, and the two heaviest classes of weights that sum to one."""
    assert caption("label", value) == text


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray], ids=["host", "device"])
def test_a_notebook_shows_the_valid_rows_with_their_labels(place):
    """Padding has no picture; a record has its number and its label."""
    images = photographs()
    batch = Batch.from_arrays(
        {"image": place(images), "label": place(np.int32([5, 6, 7])), "x": place(images[:, 0])},
        valid_mask=[True, False, True],
        record_index=[10, 11, 12],
    )
    html = batch._repr_html_()
    shown = pictures(html)
    assert len(shown) == 2
    np.testing.assert_array_equal(shown[0], images[0])
    np.testing.assert_array_equal(shown[1], images[2])
    assert re.findall(r"record (\d+)<br>label (\d)", html) == [("10", "5"), ("12", "7")]


def test_the_first_twelve_records_are_shown():
    """And how many are left."""
    html = Batch.from_arrays({"image": photographs(15)})._repr_html_()
    assert len(pictures(html)) == 12
    assert "and 3 more" in html


def test_names_are_text():
    """A field cannot bring markup into a page."""
    html = Batch.from_arrays({"<script>": photographs()})._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_what_the_host_cannot_read_is_described_by_its_shape():
    """A traced batch, and one whose memory was given away, still show their line."""
    fields = {"image": jnp.asarray(photographs()), "key": jax.random.split(jax.random.key(0), 3)}
    batch = Batch.from_arrays(fields, epoch=1)
    assert len(pictures(batch._repr_html_())) == 3
    batch = jax.device_put(batch)
    lines = []
    jax.jit(lambda traced: lines.append(traced._repr_html_()))(batch)
    for leaf in jax.tree.leaves(batch):
        leaf.delete()
    lines.append(batch._repr_html_())
    for line in lines:
        assert "Batch(3 rows, " in line
        assert "uint8[3,8,6,3]" in line
        assert pictures(line) == []


def test_a_config_shows_what_differs_from_the_defaults():
    """In a line, of configs of users too, unless they have a text of their own."""
    assert repr(Stretched()) == "Stretched()"
    config = Stretched(batch_strategy="scan", factor=2.0)
    assert repr(config) == "Stretched(batch_strategy='scan', factor=2.0)"
    assert repr(Described()) == "as its author wants"


def test_a_notebook_shows_all_options_of_a_config():
    """Those that differ are bold."""
    html = Stretched(factor=2.0)._repr_html_()
    assert "<td>factor</td><td><code><b>2.0</b></code></td>" in html
    assert "<td>batch_strategy</td><td><code>&#x27;vmap&#x27;</code></td>" in html


def test_an_operator_prints_one_line():
    """`print` shows what `repr` shows, not a page of Variables."""
    op = ElementOperator(ElementOperatorConfig(), fn=add_one, name="one")
    assert str(op) == repr(op) == "ElementOperator(name='one')"


def test_a_notebook_shows_the_members_and_counts_of_a_composition():
    """Members are listed with their own options."""
    members = [ElementOperator(ElementOperatorConfig(), fn=add_one, name=n) for n in ("a", "b")]
    op = CompositeOperatorModule(CompositeOperatorConfig(), operators=members)
    op({"x": np.zeros((4, 2), np.float32)})
    html = op._repr_html_()
    assert html.count("<li>") == 2
    assert html.count("records: 4 applied, 0 skipped") == 3
    lines = []
    nnx.jit(lambda op: lines.append(op._repr_html_()))(op)
    assert "counted inside a compiled function" in lines[0]
