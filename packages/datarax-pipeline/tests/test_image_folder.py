"""`ImageFolderSource`: files in a folder for each class."""

import sys

import numpy as np
import pytest

from datarax.pipeline import Pipeline
from datarax.sources import ImageFolderConfig, ImageFolderSource

pytestmark = pytest.mark.usefixtures("quick_compiles")


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three cats, one of them deeper, and two dogs; what is no image beside them."""
    image = pytest.importorskip("PIL.Image", reason="needs the extra [images]")
    root = tmp_path_factory.mktemp("images")
    for number, name in enumerate(["cat/a.png", "cat/b.PNG", "cat/more/c.png", "dog/a.png"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(pixels(number)).save(root / name, "PNG")
    image.fromarray(pixels(4)[..., 0]).save(root / "dog/grey.png")
    (root / "dog/notes.txt").write_text("no image")
    (root / "list.csv").write_text("no image")
    return root


def test_images_come_with_the_labels_of_their_folders(root):
    """Classes by name, files by path, deeper ones too; grey images get the channels asked for."""
    source = ImageFolderSource(ImageFolderConfig(root=root, metadata_fields=("path",)))
    assert source.classes == ("cat", "dog")
    (batch,) = Pipeline(source=source, batch_size=5)
    assert batch["label"].tolist() == [0, 0, 0, 1, 1]
    for number in range(4):
        np.testing.assert_array_equal(batch["image"][number], pixels(number))
    np.testing.assert_array_equal(batch["image"][4], np.repeat(pixels(4)[..., :1], 3, axis=2))
    paths = [entry["path"] for entry in batch.metadata]
    assert paths == ["cat/a.png", "cat/b.PNG", "cat/more/c.png", "dog/a.png", "dog/grey.png"]
    grey = ImageFolderSource(ImageFolderConfig(root=root, mode="L"))
    np.testing.assert_array_equal(grey[4]["image"], pixels(4)[..., :1])


def test_an_image_can_be_left_to_transforms(root):
    """Opened, not decoded, as Pillow gives it."""
    source = ImageFolderSource(ImageFolderConfig(root=root, decode=False))
    assert source[4]["image"].mode == "L"
    assert source[0]["image"].crop((1, 0, 3, 2)).size == (2, 2)


def test_a_broken_file_is_named(root, tmp_path):
    """The error has the file, the record and the source."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "broken.jpg").write_bytes(b"no image")
    source = ImageFolderSource(ImageFolderConfig(root=tmp_path))
    with pytest.raises(Exception, match="cannot identify image file") as caught:
        source.element_spec()
    notes = "\n".join(caught.value.__notes__)
    assert "broken.jpg" in notes
    assert "record 0 of ImageFolderSource" in notes
    with pytest.raises(IndexError, match="index must be from 0 to 0, got 1"):
        source[1]


def test_folders_without_images_are_refused(tmp_path):
    """With what was looked for."""
    with pytest.raises(ValueError, match="root of ImageFolderSource must be a folder"):
        ImageFolderSource(ImageFolderConfig(root=tmp_path / "none"))
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"files that end with .jpg, .*folders \['cat'\]"):
        ImageFolderSource(ImageFolderConfig(root=tmp_path))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": 3}, TypeError, "root must be a path, got 3"),
        ({"mode": ""}, ValueError, "mode must be a non-empty string"),
        ({"decode": 1}, TypeError, "decode must be True or False"),
        ({"extensions": ".jpg"}, TypeError, "extensions must be a tuple"),
        ({"metadata_fields": ("name",)}, ValueError, "can hold 'path'"),
    ],
)
def test_config_refuses_bad_options(options, error, message):
    """When the config is made."""
    with pytest.raises(error, match=message):
        ImageFolderConfig(**({"root": "."} | options))


def test_missing_extra_says_what_to_install(monkeypatch, tmp_path):
    """Without Pillow, the error of the source names the extra."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'datarax-pipeline\[images\]'"):
        ImageFolderSource(ImageFolderConfig(root=tmp_path))
