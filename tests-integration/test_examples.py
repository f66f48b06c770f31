"""The shorter examples run, and the page that shows their results shows what came out."""

import json
import re
import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/batch-mixing.md"
RESULTS = ROOT / "docs/images/mixing-experiment.json"


@pytest.fixture(autouse=True, scope="module")
def quick_compiles():
    """No test here depends on the last digits, and most of the time would go into compiling."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def run_example(monkeypatch):
    """A function that runs a script of `examples/` in this process, and returns its variables."""

    def run(name, *options):
        for module in ("matplotlib", "scipy", "sklearn", "tqdm"):
            pytest.importorskip(module, reason=f"the examples need {module}")
        monkeypatch.setenv("MPLBACKEND", "Agg")
        monkeypatch.setattr(sys, "argv", [name, *options])
        # Adam of Optax does not work with strict promotion.
        with jax.numpy_dtype_promotion("standard"):
            return runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")

    return run


def test_alpha_moves_when_it_is_learned(run_example, capsys):
    """Two epochs change α, and the example prints its way."""
    left = run_example("learned_mixing.py", "--splits", "1", "--epochs", "2", "--alpha", "0.4")
    assert left["alphas"][0] != pytest.approx(0.4, rel=1e-3)
    assert 0.3 < left["alphas"][-1] < 0.5
    assert re.search(r"split 0: α 0\.\d\d .*test accuracy [\d.]+%", capsys.readouterr().out)


def test_a_brightness_and_a_rotation_are_learned(run_example):
    """Gradients through both operators find the numbers with which the images were made."""
    left = run_example("learned_augmentation.py")
    assert left["factor"] == pytest.approx(left["FACTOR"], abs=0.01)
    assert left["degrees"] == pytest.approx(left["DEGREES"], abs=0.3)


def test_a_recipe_shows_what_the_network_sees(monkeypatch, tmp_path):
    """The whole recipe in a pipeline and a crop in the loop give mixed batches.

    The loop has the same operators otherwise, which would have to be compiled once more.
    """
    for module in ("matplotlib", "skimage"):
        pytest.importorskip(module, reason=f"the example needs {module}")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with jax.numpy_dtype_promotion("standard"):
        example = runpy.run_path(str(ROOT / "examples/image_recipe.py"))
        records = example["photographs"](36, 48)
        epochs = example["by_pipeline"](records, 24, epochs=2)
        whole = example["augmentation"]
        monkeypatch.setitem(
            example["by_own_loop"].__globals__,
            "augmentation",
            lambda *args: whole(*args).operators[0],
        )
        losses, steps = example["by_own_loop"](records, 24, steps=2)
    assert np.isfinite(losses).all()
    for seen in (*epochs, *steps):
        assert seen["image"].shape == (5, 24, 24, 3)
        np.testing.assert_allclose(seen["label"].sum(1), 1, rtol=1e-5)
    for seen in epochs:
        assert seen["image"].min() < -0.5
        assert seen["image"].max() > 0.5
    for first, second in (epochs, steps):
        assert not np.array_equal(first["image"], second["image"])
    example["draw"](records, {"epoch 0": epochs[0], "step 0": steps[0]}, tmp_path / "seen.png")
    assert (tmp_path / "seen.png").stat().st_size > 10_000


def test_a_killed_training_goes_on_to_the_bit(monkeypatch, tmp_path):
    """The losses after a stop in the middle of an epoch are those of a training without one."""
    pytest.importorskip("sklearn", reason="the example needs sklearn")

    def stopped(*_):
        raise InterruptedError("instead of a kill, which would need another process")

    monkeypatch.setattr("os.kill", stopped)
    with jax.numpy_dtype_promotion("standard"):
        train = runpy.run_path(str(ROOT / "examples/resume_training.py"))["train"]
        with pytest.raises(InterruptedError, match="instead of a kill"):
            train(tmp_path / "killed", dies_at=13)
        resumed, _ = train(tmp_path / "killed")
        whole, _ = train(tmp_path / "whole")
    assert list(resumed) == list(range(10, 32))
    assert resumed == {step: whole[step] for step in resumed}
    assert len(set(whole.values())) == 32


def test_experiment_writes_its_table_figure_and_numbers(run_example, tmp_path, capsys):
    """Two seeds give a row for each kind of mixing, a figure, and JSON with a number a seed."""
    run_example(
        "mixing_experiment.py", "--seeds", "2", "--epochs", "1", "--output-dir", str(tmp_path)
    )
    rows = re.findall(r"^\| (none|MixUp|CutMix|both) \| [\d.]+ ±", capsys.readouterr().out, re.M)
    assert rows == ["none", "MixUp", "CutMix", "both"]
    assert (tmp_path / "mixing-experiment.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "mixing-experiment.json").read_text(encoding="utf-8"))
    assert results["measures"].keys() == set(rows)
    for measures in results["measures"].values():
        assert {len(values) for values in measures.values()} == {2}
    left_out = np.array(list(results["calibration"].values()))[:, 0].sum(axis=1)
    np.testing.assert_array_equal(left_out, 2 * 1197)


def test_page_shows_the_experiments_numbers():
    """The table in the documentation has the means of the results beside it."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    table = re.findall(r"^\| (none|MixUp|CutMix|both) \| (\d.*) \|$", PAGE.read_text("utf-8"), re.M)
    assert results["seeds"] >= 10
    assert [name for name, _ in table] == list(results["measures"])
    for name, cells in table:
        shown = [float(cell.split(" ")[0]) for cell in cells.split(" | ")]
        means = [np.mean(values) for values in results["measures"][name].values()]
        np.testing.assert_allclose(shown, [100 * means[0], *means[1:]], atol=0.0501)
        np.testing.assert_allclose(shown[1:3], means[1:3], atol=0.000501)


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda p: p.stem)
def test_a_notebook_of_the_manual_has_the_code_of_its_example(path):
    """Whoever changes an example runs `nox -s notebooks`."""
    jupytext = pytest.importorskip("jupytext", reason="only for this comparison")
    cells = jupytext.read(path).cells
    page = (ROOT / "docs/notebooks" / f"{path.stem}.md").read_text(encoding="utf-8")
    for cell in cells[1:]:
        source = f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source
        assert source in page, f"run nox -s notebooks: no page has {cell.source[:60]!r}"
