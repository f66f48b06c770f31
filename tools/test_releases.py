"""The next release of a package: versions, changelogs and refusals."""

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from history import Build, RefusedError
from releases import bumped, dated, least_version, planned, tagged_dist, write

CORE = Build("datarax-core", Version("0.2.0"), {}, "c0ffee")
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A field.\n\n## [0.1.0] - 2026-11-21\n"


def batching(pin, version="0.2.0", commit=None):
    pins = {"datarax-core": SpecifierSet(pin)}
    return Build("datarax-batching", Version(version), pins, commit)


def plan(part, version, pin="~=0.2.0", broken=(), dist="datarax-core"):
    """The next version of a distribution, when core 0.2.0 is the last release."""
    tree = {
        "datarax-core": Build("datarax-core", Version(version), {}),
        "datarax-batching": batching(pin),
    }
    released = {"datarax-core": [CORE], "datarax-batching": [batching("~=0.1.0", "0.1.0", "d")]}
    return str(planned(dist, part, tree, released, list(broken)))


@pytest.mark.parametrize(
    ("part", "expected"), [("patch", "0.2.4"), ("minor", "0.3.0"), ("major", "1.0.0")]
)
def test_a_part_of_the_version_is_raised(part, expected):
    """What comes after the raised part begins at zero."""
    assert bumped(Version("0.2.3"), part) == Version(expected)


@pytest.mark.parametrize("part", ["", "micro", "minor patch"])
def test_other_parts_are_refused(part):
    """The options of the session are named."""
    with pytest.raises(RefusedError, match="one of major, minor, patch after `--`, got"):
        bumped(Version("0.2.3"), part)


@pytest.mark.parametrize(
    ("last", "breaks", "expected"),
    [("0.2.1", False, "0.2.1"), ("0.2.1", True, "0.3.0"), ("1.2.1", True, "2.0.0")],
)
def test_a_break_demands_a_minor_version_before_1(last, breaks, expected):
    """And a major one after."""
    last = Build("datarax-core", Version(last), {}, "c0ffee")
    assert least_version(last, breaks) == Version(expected)


@pytest.mark.parametrize(
    ("part", "version", "pin", "expected"),
    [
        ("patch", "0.2.0", "~=0.2.0", "0.2.1"),
        ("minor", "0.2.0", ">=0.2", "0.3.0"),
        ("minor", "0.3.0", "~=0.3.0", "0.3.0"),
    ],
    ids=["raised now", "minor", "raised before"],
)
def test_the_next_version_follows_the_last_release(part, version, pin, expected):
    """Whether the tree was raised already, by a change that needed it, or not."""
    assert plan(part, version, pin) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "patch", "version": "0.3.0"}, "is 0.2.1, but its pyproject.toml has 0.3.0"),
        ({"part": "minor", "version": "0.2.0"}, "batching pins datarax-core~=0.2.0, .* not allow"),
        (
            {"part": "patch", "version": "0.2.0", "broken": ["f: gone"]},
            "f: gone\nwhich a patch release must not do",
        ),
        (
            {"part": "minor", "version": "0.2.0", "pin": "~=0.3.0", "dist": "datarax-batching"},
            "the newest release of datarax-core is 0.2.0: release datarax-core first",
        ),
    ],
    ids=["raised further", "a pin breaks", "names are gone", "a sibling is missing"],
)
def test_releases_that_would_break_somebody_are_refused(options, message):
    """The reason and the remedy are named."""
    with pytest.raises(RefusedError, match=message):
        plan(**options)


def test_the_changelog_gets_the_date():
    """The entries under Unreleased are those of the release; others stay as they are."""
    text = dated(CHANGELOG, Version("0.2.0"), "2026-12-01")
    assert text == CHANGELOG.replace("[Unreleased]", "[0.2.0] - 2026-12-01")


@pytest.mark.parametrize(
    "text", [CHANGELOG.replace("- A field.\n", ""), CHANGELOG.replace("Unreleased", "0.2.0")]
)
def test_a_release_without_news_is_refused(text):
    """An empty section counts as none, even where an older one has entries."""
    with pytest.raises(RefusedError, match=r"nothing under `## \[Unreleased\]`"):
        dated(text + "\n- Everything.\n", Version("0.2.0"), "2026-12-01")


def test_a_release_writes_version_and_date_or_nothing(tmp_path):
    """A changelog without news leaves the version as it was."""
    project = '[project]\nname = "datarax-core"\nversion = "0.1.0"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    write(tmp_path, Version("0.2.0"), "2026-12-01")
    assert 'version = "0.2.0"' in (tmp_path / "pyproject.toml").read_text()
    assert "## [0.2.0] - 2026-12-01" in (tmp_path / "CHANGELOG.md").read_text()
    with pytest.raises(RefusedError, match="nothing under"):
        write(tmp_path, Version("0.3.0"), "2026-12-02")
    assert 'version = "0.2.0"' in (tmp_path / "pyproject.toml").read_text()


def test_a_tag_names_the_distribution_that_it_releases():
    """Its version is the one in the tree."""
    assert tagged_dist("datarax-core-v0.2.0", {"datarax-core": CORE}) == "datarax-core"


@pytest.mark.parametrize(
    "tag", ["", "v0.2.0", "datarax-core-v0.2.1", "datarax-core-0.2.0", "datarax-sums-v0.2.0"]
)
def test_a_tag_of_something_else_is_refused(tag):
    """Nothing is published under a version that the tree does not have."""
    with pytest.raises(RefusedError, match=r"this tree is datarax-core-v0\.2\.0, got"):
        tagged_dist(tag, {"datarax-core": CORE})
