"""`TFDSEagerSource`, on a small ArrayRecord data set that is prepared here."""

import io
import os
import re
import sys

import jax
import numpy as np
import pytest

from datarax.pipeline import Pipeline
from datarax.sources import TFDSEagerConfig, TFDSEagerSource

# tensorflow-datasets itself calls what protobuf 6 deprecates.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")


def test_missing_extra_says_what_to_install(monkeypatch):
    """Without tensorflow-datasets, the error of the source names the extra."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax-pipeline\[tfds\]'"):
        TFDSEagerSource(TFDSEagerConfig(name="cifar10", split="train"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be a non-empty string"),
        ({"split": None}, TypeError, "split must be a non-empty string"),
        ({"data_dir": 3}, TypeError, "data_dir must be a path or None, got 3"),
        ({"exclude_keys": "id"}, TypeError, "exclude_keys must be a set of field names, got 'id'"),
        ({"exclude_keys": {1}}, TypeError, "exclude_keys must be a set of field names"),
        ({"on_device": "cpu"}, TypeError, "on_device must be True or False, got 'cpu'"),
    ],
)
def test_config_refuses_bad_options(options, error, message):
    """Bad options are refused when the config is made."""
    with pytest.raises(error, match=message):
        TFDSEagerConfig(**({"name": "cifar10", "split": "train"} | options))


EXCLUDED = {"id", "size", "objects", "more"}


def image(number):
    return np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)


def png(array):
    """The array as a PNG file, which TFDS takes without TensorFlow."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A directory with a data set "cifar10": 20 records in "train", 5 in "test"."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra [tfds]")
    pytest.importorskip("array_record", reason="needs the extra [tfds]")

    class Cifar10(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "label": tfds.features.ClassLabel(num_classes=30),
                    "size": tfds.features.Tensor(shape=(None,), dtype=np.float32),
                    "objects": tfds.features.Sequence({"area": np.int64}),
                    "more": {"note": tfds.features.Text()},
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples(0, 20),
                "test": self._generate_examples(20, 25),
            }

        def _generate_examples(self, first, last):
            for number in range(first, last):
                size = np.ones(number % 3, np.float32)
                record = {"id": f"r{number}", "image": png(image(number)), "label": number}
                record["objects"] = {"area": list(range(number % 4))}
                yield number, record | {"size": size, "more": {"note": "n"}}

    path = tmp_path_factory.mktemp("tfds")
    Cifar10(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def source(data_dir, **options):
    defaults = {"name": "cifar10", "split": "train", "exclude_keys": EXCLUDED}
    return TFDSEagerSource(TFDSEagerConfig(data_dir=data_dir, **(defaults | options)))


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_all_records_are_read(data_dir, on_device):
    """Every image arrives exactly with its label; excluded fields do not."""
    records = source(data_dir, on_device=on_device)
    batch = records.gather(np.arange(20))
    assert set(batch.keys()) == {"image", "label"}
    assert sorted(batch["label"].tolist()) == list(range(20))
    for row, label in enumerate(batch["label"].tolist()):
        np.testing.assert_array_equal(batch["image"][row], image(label))
    assert (records.device_records() is not None) == on_device
    assert records.element_spec() == {
        "image": jax.ShapeDtypeStruct((4, 4, 3), np.uint8),
        "label": jax.ShapeDtypeStruct((), np.int32),
    }


def test_no_tensorflow_is_imported(data_dir):
    """Neither preparing nor reading needs TensorFlow."""
    source(data_dir)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("split", "rows"),
    [("train[:7]", slice(0, 7)), ("train[50%:]", slice(10, 20)), ("train[-3:]", slice(17, 20))],
)
def test_split_slices_are_rows_of_the_split(data_dir, split, rows):
    """Slices by number and by percent are the rows of the whole split."""
    whole = source(data_dir).gather(np.arange(20))
    part = source(data_dir, split=split)
    np.testing.assert_array_equal(part.gather(np.arange(len(part)))["label"], whole["label"][rows])


def test_texts_can_be_metadata(data_dir):
    """What no array holds travels with its record."""
    records = source(
        data_dir, exclude_keys=EXCLUDED - {"id", "more"}, metadata_fields=("id", "more")
    )
    batch = records.gather(np.array([7, 3]))
    names = [entry["id"].decode() for entry in batch.metadata]
    assert names == [f"r{label}" for label in batch["label"].tolist()]
    assert batch.metadata[0]["more"] == {"note": b"n"}


def test_splits_can_be_added(data_dir):
    """`+` reads one split after the other."""
    assert len(source(data_dir, split="train+test")) == 25


@pytest.mark.parametrize("how", ["parent", "folder", "version", "environment", "string"])
def test_ways_to_name_the_directory(data_dir, how, monkeypatch):
    """The directory of all data sets, or this one's; by argument or environment; a version too."""
    folder = data_dir / "cifar10" / "3.0.2"
    options = {
        "parent": {},
        "folder": {"data_dir": folder},
        "version": {"name": "cifar10:3.0.2"},
        "environment": {"data_dir": None},
        "string": {"data_dir": os.fspath(data_dir)},
    }[how]
    monkeypatch.setenv("TFDS_DATA_DIR", os.fspath(data_dir))
    options = {"data_dir": data_dir} | options
    directory = options.pop("data_dir")
    assert len(source(directory, **options)) == 20


def test_the_tutorials_pipeline_reads_shuffled_batches(data_dir):
    """Shuffled epochs hold every record once, reproducibly from the seed."""
    options = {"shuffle": True, "seed": 42, "split": "train[:12]"}
    orders = []
    for _ in range(2):
        pipeline = Pipeline(source=source(data_dir, **options), batch_size=8)
        batches = [batch.compact() for _ in range(2) for batch in pipeline]
        orders.append(np.concatenate([batch.record_index for batch in batches]).tolist())
    assert orders[0] == orders[1]
    assert sorted(orders[0][:12]) == sorted(orders[0][12:]) == list(range(12))
    assert orders[0][:12] != orders[0][12:]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "mnist"}, ValueError, "no prepared data set 'mnist'"),
        ({"name": "cifar10:9.9.9"}, ValueError, "no prepared data set 'cifar10:9.9.9'"),
        ({"split": "valid"}, ValueError, "these splits .* {'train': 20, 'test': 5}"),
        ({"split": "train[:256]"}, ValueError, "split 'train\\[:256\\]' of .* cannot be read"),
        ({"split": "train[:0]"}, ValueError, "split 'train\\[:0\\]' of .* cannot be read"),
        ({"exclude_keys": EXCLUDED - {"id"}}, TypeError, "field 'id' of .* metadata_fields"),
        ({"exclude_keys": EXCLUDED - {"size"}}, ValueError, "field 'size' of record .* record 0"),
        ({"exclude_keys": {"idd"}}, KeyError, r"'idd', but .* \['id', 'image', 'label', 'more'"),
        ({"exclude_keys": EXCLUDED | {"image", "label"}}, ValueError, "at least one leaf"),
        ({"metadata_fields": ("id",)}, KeyError, "names 'id', but .* without"),
    ],
    ids=[
        "name",
        "version",
        "split",
        "too many",
        "no record",
        "text",
        "ragged",
        "no such field",
        "nothing left",
        "left out",
    ],
)
def test_what_cannot_be_read_is_refused(data_dir, options, error, message):
    """The error names what was asked for and what there is."""
    with pytest.raises(error, match=message):
        source(data_dir, **options)


def test_another_data_set_in_the_directory_is_refused(data_dir):
    """A directory that holds another data set than the one named is not read."""
    with pytest.raises(ValueError, match="holds the data set 'cifar10', not 'mnist'"):
        source(data_dir / "cifar10" / "3.0.2", name="mnist")


def test_another_format_is_refused(data_dir, tmp_path):
    """A data set in a format without access by number says how to prepare it."""
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    for file in (data_dir / "cifar10" / "3.0.2").glob("*.json"):
        text = file.read_text().replace("array_record", "tfrecord")
        (folder / file.name).write_text(text)
    with pytest.raises(ValueError, match=re.escape("file_format='array_record'")):
        source(tmp_path)


def test_a_copy_has_the_same_records(data_dir):
    """`copy` and `clone` serve the records again."""
    original = source(data_dir, shuffle=True, seed=1)
    for each in (original.copy(), original.clone()):
        np.testing.assert_array_equal(each.order(1), original.order(1))
        np.testing.assert_array_equal(each[3].data["image"], original[3].data["image"])
