"""The build session finds what is wrong with wheels, one mistake at a time."""

import tarfile
import zipfile

import pytest

from wheel_checks import problems

CORE = {"datarax/core/fields.py": "", "datarax/core/_rows.py": "", "datarax/core/_hidden/a.py": ""}
PIPELINE = {"datarax/pipeline/__init__.py": "from datarax.core import fields\n"}


def built(folder, **sources):
    """Wheels and sdists of distributions with these files, as `dist/` holds them."""
    wheels = {}
    for name, files in sources.items():
        stem = f"datarax_{name}-1.0"
        wheels[f"datarax-{name}"] = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(wheels[f"datarax-{name}"], "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
        with tarfile.open(folder / f"{stem}.tar.gz", "w:gz") as archive:
            for path in files:
                archive.addfile(tarfile.TarInfo(f"{stem}/src/{path}"))
    return wheels


def test_sound_wheels_have_no_problems(tmp_path):
    """Public imports from a sibling, private ones at home and those of others are all right."""
    own = {"datarax/pipeline/_state.py": "from datarax.core.fields import __doc__\n"}
    more = {"datarax/pipeline/_a.py": "from datarax.pipeline import _state\nimport _thread\n"}
    assert problems(built(tmp_path, core=CORE, pipeline=PIPELINE | own | more)) == []


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("from datarax.core import _rows", "datarax.core._rows"),
        ("import datarax.core._rows as rows", "datarax.core._rows"),
        ("from datarax.core._rows import take", "datarax.core._rows.take"),
        ("def f():\n    from datarax.core._hidden.a import b", "datarax.core._hidden.a.b"),
        ("from datarax.core.fields import _walk", "datarax.core.fields._walk"),
    ],
)
def test_private_modules_of_a_sibling_are_not_imported(tmp_path, code, target):
    """A patch of one distribution could otherwise break a released version of another."""
    wheels = built(tmp_path, core=CORE, pipeline={"datarax/pipeline/_reader.py": code})
    expected = f"datarax.pipeline._reader of datarax-pipeline imports {target}, which is private"
    assert problems(wheels) == [f"{expected} to datarax-core"]


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("datarax/core/fields.py", "datarax-core and datarax-pipeline both contain"),
        ("datarax_pipeline.pth", "datarax-pipeline contains datarax_pipeline.pth, which Python"),
        ("datarax/core/__init__.py", "datarax-pipeline contains datarax/core/__init__.py, which"),
    ],
)
def test_files_that_harm_other_distributions_are_found(tmp_path, file, problem):
    """No two wheels share a file, none runs code at start-up, none closes a namespace."""
    (found,) = problems(built(tmp_path, core=CORE, pipeline=PIPELINE | {file: ""}))
    assert found.startswith(problem)


def test_an_sdist_holds_what_its_wheel_does(tmp_path):
    """What is built from an sdist is complete."""
    wheels = built(tmp_path, core=CORE)
    with zipfile.ZipFile(wheels["datarax-core"], "a") as archive:
        archive.writestr("datarax/core/_late.py", "")
    assert problems(wheels) == ["the sdist of datarax-core lacks datarax/core/_late.py"]
