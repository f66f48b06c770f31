"""The tutorial in `examples/` runs, draws its figures and becomes a notebook."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "mixup_cutmix_tutorial.py"
FIGURES = {
    "mixup.png": (2, 8),
    "cutmix.png": (2, 8),
    "both.png": (2, 8),
    "alpha.png": (4, 8),
    "labels.png": (1, 2),
    "patch_dropout.png": (2, 8),
    "training.png": (1, 2),
}


def require_demo():
    """Skips where the demo's requirements are not installed."""
    for module in ("matplotlib", "skimage", "tqdm"):
        pytest.importorskip(module, reason=f"the demo needs {module}")


def run_tutorial(folder, *options):
    """What the tutorial prints in a process of its own, with an empty folder as HOME."""
    command = [sys.executable, str(SCRIPT), "--output-dir", str(folder / "figures"), *options]
    # One device, as users have, where the other tests pretend to have eight; and quick compiles,
    # because no test here depends on the digits of the training, which `demo` runs in full. Of a
    # flag that comes twice, XLA reads the last.
    flags = "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0"
    flags = f"{os.environ['XLA_FLAGS']} {flags}"
    home = {"HOME": str(folder), "XLA_FLAGS": flags, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        command, env=os.environ | home, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(text):
    """The rows of the results table: mixing, largest weight, confidence, images/s."""
    row = r"^(none|MixUp|CutMix|both) +([\d.]+) +([\d.]+)% +(\d+)$"
    return {name: tuple(map(float, rest)) for name, *rest in re.findall(row, text, re.MULTILINE)}


def check_figures(folder):
    """Every figure is there, has a sensible size, and shows something."""
    from matplotlib.image import imread

    assert {path.name for path in folder.glob("*")} == set(FIGURES)
    for name, (rows, _) in FIGURES.items():
        assert 10_000 < (folder / name).stat().st_size < 300_000, name
        pixels = imread(folder / name)
        assert pixels.shape[1] > 1000, name
        assert pixels.shape[0] > 150 * rows, name
        assert pixels[..., :3].std() > 0.05, name


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What a short run on the photographs prints, and where its figures are."""
    require_demo()
    folder = tmp_path_factory.mktemp("tutorial")
    return run_tutorial(folder, "--epochs", "1"), folder / "figures"


def test_all_figures_are_drawn(printed):
    """Each part of the tutorial leaves its figure, small enough for the documentation."""
    text, folder = printed
    check_figures(folder)
    assert str(folder) in text


def test_table_compares_four_trainings(printed):
    """The printed table has a row for each way of mixing, and every classifier has learned."""
    rows = table(printed[0])
    assert set(rows) == {"none", "MixUp", "CutMix", "both"}
    assert rows["none"][0] == 1.0
    assert rows["CutMix"][0] < rows["MixUp"][0] < 1
    assert all(100 > confidence > 12.5 and speed > 0 for _, confidence, speed in rows.values())
    least = re.search(r"each is right on at least ([\d.]+)% of the test images", printed[0])
    assert float(least[1]) > 50


def test_what_the_run_cannot_say_is_stated(printed):
    """The output ranks nothing by accuracies that measure no generalisation; it shows the sizes."""
    assert "Which of them is best, this short run cannot say" in printed[0]
    assert "no measure of generalisation" in printed[0]
    assert "1600 training images, 320 test images" in printed[0]
    assert "CIFAR" not in printed[0]


def test_class_numbers_survive_mixing(printed):
    """The tutorial shows `label_idx` before and after MixUp: the same integers."""
    before, after = re.findall(r"label_idx (?:before|after ) (\[[\d ]+\])", printed[0])
    assert before == after


def cifar10_directory(folder):
    """A small data set in ArrayRecord format with the name and the shapes of CIFAR-10."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra [tfds]")
    pytest.importorskip("array_record", reason="needs the extra [tfds]")
    image_module = pytest.importorskip("PIL.Image", reason="needs the extra [tfds]")

    def png(label, rng):
        """A noisy image whose brightness tells its class."""
        pixels = np.full((32, 32, 3), 20 * label + 20) + rng.integers(-10, 10, (32, 32, 3))
        file = io.BytesIO()
        image_module.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
        file.seek(0)
        return file

    class Cifar10(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("3.0.2")

        def _info(self):
            features = {
                "id": tfds.features.Text(),
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples(0, 1600),
                "test": self._generate_examples(1600, 2000),
            }

        def _generate_examples(self, first, last):
            for number in range(first, last):
                image = png(number % 10, np.random.default_rng(number))
                yield number, {"id": f"{number}", "image": image, "label": number % 10}

    Cifar10(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.thorough
def test_prepared_cifar10_takes_the_place_of_the_photographs(tmp_path):
    """With `--tfds-dir`, a tenth of the directory's records is read, and all figures are drawn."""
    require_demo()
    data_dir = cifar10_directory(tmp_path / "tfds")
    text = run_tutorial(tmp_path, "--tfds-dir", str(data_dir), "--epochs", "1")
    assert "160 training images, 40 test images" in text
    assert "label: float32[32,10]" in text
    assert set(table(text)) == {"none", "MixUp", "CutMix", "both"}
    check_figures(tmp_path / "figures")


def test_tutorial_becomes_a_notebook(tmp_path):
    """Jupytext reads the script as cells of prose and code, none of them long."""
    pytest.importorskip("jupytext", reason="only for this conversion")
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", str(SCRIPT)]
    subprocess.run([*command, "-o", str(tmp_path / "tutorial.ipynb")], check=True)
    cells = json.loads((tmp_path / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    assert kinds.count("markdown") > 10
    assert kinds.count("code") > 10
    assert "# MixUp and CutMix" in "".join(cells[0]["source"])
    assert max(len(cell["source"]) for cell in cells) < 50
