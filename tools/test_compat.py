"""The pairs of versions that a user may have, as the pins have it."""

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from compat import merged, nothing_to_test, pairings, table
from history import Build


def build(dist, version, commit=None, **pins):
    return Build(
        f"datarax-{dist}",
        Version(version),
        {f"datarax-{name}": SpecifierSet(pin) for name, pin in pins.items()},
        commit,
    )


def found(tree, releases):
    """The builds of each question, as text."""
    tree = {each.dist: each for each in tree}
    history = {dist: [each for each in releases if each.dist == dist] for dist in tree}
    return {
        each.question: sorted(
            f"{dist.removeprefix('datarax-')} {'tree' if b.commit is None else b.version}"
            for dist, b in each.builds.items()
        )
        for each in pairings(tree, history)
    }


def test_a_patch_meets_the_oldest_siblings_and_dependants_that_pins_allow():
    """Versions of 0.2 are tried with the oldest of 0.2, never with those that no pin allows."""
    releases = [
        build("batching", "0.1.0", "a", core="~=0.1.0"),
        build("batching", "0.2.0", "b", core="~=0.2.0"),
        build("batching", "0.2.1", "c", core="~=0.2.1"),
        build("core", "0.1.0", "a"),
        build("core", "0.2.0", "b"),
        build("core", "0.2.1", "c"),
    ]
    tree = [build("batching", "0.2.2", core="~=0.2.1"), build("core", "0.2.2")]
    assert found(tree, releases) == {
        "the newest datarax-batching with the oldest datarax-core it allows": [
            "batching tree",
            "core 0.2.1",
        ],
        "the oldest datarax-batching that allows the newest datarax-core": [
            "batching 0.2.0",
            "core tree",
        ],
    }


def test_after_a_breaking_change_of_core_no_release_is_paired():
    """Pins of 0.1 do not allow 0.2, so there is nothing to try."""
    releases = [build("batching", "0.1.0", "a", core="~=0.1.0"), build("core", "0.1.0", "a")]
    tree = [build("batching", "0.2.0", core="~=0.2.0"), build("core", "0.2.0")]
    pairs = list(
        pairings(
            {each.dist: each for each in tree}, {each.dist: [each] for each in reversed(releases)}
        )
    )
    reasons = {nothing_to_test(each, {}, lambda build: None) for each in pairs}
    assert reasons == {"the pins allow no release"}


def test_siblings_of_siblings_agree_with_all_pins():
    """The oldest batching that pipeline allows decides which core is the oldest."""
    releases = [
        build("batching", "0.2.0", "b", core="~=0.2.1"),
        build("core", "0.2.0", "b"),
        build("core", "0.2.1", "c"),
    ]
    tree = [
        build("batching", "0.3.0", core="~=0.2.1"),
        build("core", "0.2.2"),
        build("pipeline", "0.2.0", batching=">=0.2,<0.4", core="~=0.2.0"),
    ]
    pipeline = "the newest datarax-pipeline with the oldest datarax-batching and datarax-core"
    assert found(tree, releases)[f"{pipeline} it allows"] == [
        "batching 0.2.0",
        "core 0.2.1",
        "pipeline tree",
    ]


def test_pairings_share_an_environment_where_their_builds_agree():
    """Old dependants of one core are installed together, those of another core are not."""
    releases = [
        build("batching", "0.2.0", "b", core="~=0.2.0"),
        build("core", "0.2.0", "b"),
        build("ops-batch", "0.2.0", "b", core="~=0.2.0"),
    ]
    tree = [
        build("batching", "0.2.1", core="~=0.2.0"),
        build("core", "0.2.1"),
        build("ops-batch", "0.2.1", core="~=0.2.0"),
    ]
    history = {each.dist: [each] for each in releases}
    environments = merged(list(pairings({each.dist: each for each in tree}, history)))
    assert [len(held) for _, held in environments] == [2, 2]
    assert [builds["datarax-core"].commit for builds, _ in environments] == ["b", None]


@pytest.mark.parametrize(("text", "why"), [("1", "datarax-core did not change since"), ("2", None)])
def test_what_did_not_change_since_its_release_is_not_tried_again(tmp_path, text, why):
    """A change of core is tried with released dependants; the same core was, before its release."""
    tree = [build("batching", "0.2.0", core="~=0.2.0"), build("core", "0.2.0")]
    releases = {
        "datarax-batching": [build("batching", "0.2.0", "b", core="~=0.2.0")],
        "datarax-core": [build("core", "0.2.0", "b")],
    }
    for name, content in {"datarax-core-b": "1", "datarax-core-None": text}.items():
        (tmp_path / name / "src" / "datarax").mkdir(parents=True)
        (tmp_path / name / "src" / "datarax" / "a.py").write_text(content)
    _, dependants = pairings({each.dist: each for each in tree}, releases)
    reason = nothing_to_test(dependants, releases, lambda b: tmp_path / f"{b.dist}-{b.commit}")
    assert reason == why


def test_the_table_says_which_version_works_with_which():
    """Releases, and a tree with a newer version, with the versions that their pins allow."""
    releases = {
        "datarax-core": [build("core", "0.2.0", "a"), build("core", "0.2.1", "b")],
        "datarax-batching": [build("batching", "0.2.0", "a", core="~=0.2.0")],
    }
    tree = {
        "datarax-core": build("core", "0.2.1"),
        "datarax-batching": build("batching", "0.3.0", core="~=0.3.0"),
    }
    assert table(tree, releases).splitlines()[2:] == [
        "| datarax-core | 0.2.1 | nothing else needed |",
        "| datarax-core | 0.2.0 | nothing else needed |",
        "| datarax-batching | 0.3.0, not released | datarax-core ~=0.3.0 (none yet) |",
        "| datarax-batching | 0.2.0 | datarax-core ~=0.2.0 (0.2.0, 0.2.1) |",
    ]
