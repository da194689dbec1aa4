"""Data sets by name, and pairs in the layouts people have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from irtool.data import between, clean, datasets, discover, get_dataset, get_protocol, names_hash
from irtool.data.registry import parse
from irtool.data.sources import find
from irtool.errors import IrtoolError, UnavailableError, UsageError
from irtool.synth import parse as parse_chain


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """Lays out empty files: pairs are found by names alone."""

    def make(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


LAYOUTS = [
    (("rain/norain-001.png", "rain/norain-002.png", "norain/norain-001.png", "norain/norain-002.png"), "the same name"),
    (("rainy/rain-001.png", "rainy/rain-002.png", "gt/norain-001.png", "gt/norain-002.png"), "'rain' becomes 'norain'"),
    (("rain-001.png", "rain-002.png", "norain-001.png", "norain-002.png"), "'rain' becomes 'norain'"),
    (("rain/rain-001x2.png", "rain/rain-002x2.png", "norain/rain-001.png", "norain/rain-002.png"), "without its scale"),
    (("Rain100H/LQ/1.png", "Rain100H/LQ/2.png", "Rain100H/GT/1.jpg", "Rain100H/GT/2.jpg"), "the same name"),
    (("test/input/1.png", "test/input/2.png", "test/target/1.png", "test/target/2.png"), "the same name"),
    (("eval15/low/1.png", "eval15/low/22.png", "eval15/high/1.png", "eval15/high/22.png"), "the same name"),
    (("hazy/1400_1.png", "hazy/1400_2.png", "gt/1400.png"), "before the first '_'"),
    (("hazy/0001_0.8_0.2.jpg", "hazy/0002_0.9_0.16.jpg", "clear/0001.png", "clear/0002.png"), "before the first '_'"),
    (("data/0_rain.png", "data/1_rain.png", "gt/0_clean.png", "gt/1_clean.png"), "'rain' becomes 'clean'"),
    (("a_1_real.png", "b_1_real.png", "a_1_mean.png", "b_1_mean.png"), "'real' becomes 'mean'"),
    (("shadow/x.jpg", "shadow/y.jpg", "shadow_free/x_no_shadow.jpg", "shadow_free/y_no_shadow.jpg"), "'_no_shadow'"),
    (("test/S1/blur/01.png", "test/S2/blur/01.png", "test/S1/sharp/01.png", "test/S2/sharp/01.png"), "the same name"),
    (("rain/img7.png", "rain/img08.png", "norain/truth-007.png", "norain/truth-008.png"), "last number"),
]


@pytest.mark.parametrize(("names", "rule"), LAYOUTS, ids=[names[0] for names, _ in LAYOUTS])
def test_layouts_people_have(names: tuple[str, ...], rule: str, lay: Callable[..., Path]) -> None:
    found = discover(lay(*names))
    assert len(found.pairs) == 2
    assert not found.broken
    assert not found.unused
    assert rule in found.layout
    assert [pair.name for pair in found.pairs] == sorted(pair.name for pair in found.pairs)
    assert all(pair.reference != pair.degraded for pair in found.pairs)


def test_sequences_keep_their_names_apart(lay: Callable[..., Path]) -> None:
    found = discover(lay("test/S1/blur/01.png", "test/S2/blur/01.png", "test/S1/sharp/01.png", "test/S2/sharp/01.png"))
    assert [pair.name for pair in found.pairs] == ["S1/01", "S2/01"]
    assert [pair.reference and pair.reference.parent.parent.name for pair in found.pairs] == ["S1", "S2"]


def test_the_rule_of_most_pairs_wins_and_the_rest_is_named(lay: Callable[..., Path]) -> None:
    names = [f"rain/rain-{i:03}.png" for i in range(5)] + [f"norain/norain-{i:03}.png" for i in range(4)]
    found = discover(lay(*names, "norain/norain-099.png"))
    assert [pair.name for pair in found.broken] == ["rain-004"]
    assert found.unused == ("norain-099",)


def test_one_name_in_two_folders_of_truths(lay: Callable[..., Path]) -> None:
    root = lay("shadow/100-6.png", "shadow/100-7.png", "shadow/114-5.png", "gt/114-5.png", "pseudo/100.png")
    found = between(root / "shadow", [root / "gt", root / "pseudo"])
    assert [pair.reference and pair.reference.name for pair in found.pairs] == ["100.png", "100.png", "114-5.png"]


def test_two_files_are_a_pair(lay: Callable[..., Path]) -> None:
    root = lay("a/dark.png", "b/light.png")
    found = between(root / "a/dark.png", [root / "b/light.png"])
    assert [(pair.name, pair.reference) for pair in found.pairs] == [("dark", root / "b/light.png")]


def test_training_folders_do_not_hide_the_test_part(lay: Callable[..., Path]) -> None:
    found = discover(lay("train/input/1.png", "train/target/1.png", "test/input/7.png", "test/target/7.png"))
    assert [pair.name for pair in found.pairs] == ["7"]


def test_a_set_is_told_from_others_under_one_root(lay: Callable[..., Path]) -> None:
    root = lay(
        *(f"SOTS/{part}/{kind}/{part}.png" for part in ("indoor", "outdoor") for kind in ("hazy", "gt")),
        *(f"test/Rain100{c}/{kind}/{c}.png" for c in "HL" for kind in ("input", "target")),
    )
    for name, pair in (("sots-outdoor", "outdoor"), ("sots-indoor", "indoor"), ("rain100l", "L"), ("rain100h", "H")):
        _, found = find(name, root)
        assert [p.name for p in found.pairs] == [pair], name


def test_the_layout_of_the_first_rain100l(lay: Callable[..., Path]) -> None:
    root = lay(
        *(f"rain_data_test_Light/rain/X2/norain-00{i}x2.png" for i in (1, 2)),
        *(f"rain_data_test_Light/norain/norain-00{i}.png" for i in (1, 2)),
    )
    _, found = find("rain100l", root)
    assert [(p.name, p.reference and p.reference.stem) for p in found.pairs] == [
        ("norain-001x2", "norain-001"),
        ("norain-002x2", "norain-002"),
    ]
    assert "rain/X2/ against norain/" in found.layout


def test_noisy_copies_are_not_taken_for_clean_pictures(lay: Callable[..., Path]) -> None:
    root = lay("CBSD68/noisy15/0001.png", "CBSD68/noisy5/0001.png", "CBSD68/original_png/0000.png")
    _, found = find("cbsd68", root, degrade="noise(25)")
    assert [p.reference for p in found.pairs] == [root / "CBSD68/original_png/0000.png"]


def test_clean_pictures_alone(lay: Callable[..., Path]) -> None:
    root = lay("b.png", "a.png", "notes.txt", ".hidden.png")
    assert [(pair.name, pair.degraded) for pair in clean([root]).pairs] == [("a", None), ("b", None)]
    assert discover(root, only_clean=True).pairs == clean([root]).pairs


def test_clean_pictures_of_one_stem_are_both_taken(lay: Callable[..., Path]) -> None:
    root = lay("gt/a.jpg", "gt/a.png", "gt/b.png", "gt/a.jpg.webp", "more/b.png", "more/c.png")
    found = clean([root / "gt"])
    assert [(p.name, p.reference and p.reference.name) for p in found.pairs] == [
        ("a.jpg", "a.jpg"), ("a.jpg.webp", "a.jpg.webp"), ("a.png", "a.png"), ("b", "b.png"),
    ]  # fmt: skip
    found = clean([root / "gt", root / "more"])
    assert len(found.pairs) == len({p.reference for p in found.pairs}) == 6
    assert {"gt/b", "more/b", "more/c"} <= {p.name for p in found.pairs}


def test_degraded_pictures_of_one_stem_find_the_truth_of_their_suffix(lay: Callable[..., Path]) -> None:
    root = lay(
        "lq/a.jpg", "lq/a.png", "lq/b.png", "lq/c.png", "gt/a.jpg", "gt/a.png", "gt/b.webp", "gt/c.jpg", "gt/c.bmp"
    )
    found = between(root / "lq", [root / "gt"])
    assert {p.name: p.reference and p.reference.name for p in found.pairs} == {
        "a.jpg": "a.jpg", "a.png": "a.png", "b": "b.webp", "c": None,  # c.jpg or c.bmp: nobody can tell
    }  # fmt: skip
    assert [p.name for p in found.broken] == ["c"]
    both = lay("one/a_rain.jpg", "one/a_rain.png", "one/a_clean.png")
    found = discover(both / "one")
    assert [(p.name, p.reference and p.reference.name) for p in found.pairs] == [
        ("a_rain.jpg", "a_clean.png"), ("a_rain.png", "a_clean.png"),
    ]  # fmt: skip


def test_nothing_there_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        discover(tmp_path, "rain/ and norain/")
    assert "rain/ and norain/" in caught.value.hint
    assert caught.value.exit_code == 3
    with pytest.raises(UnavailableError, match="no folder"):
        between(tmp_path / "x", [tmp_path])
    with pytest.raises(UnavailableError, match="no pictures"):
        clean([tmp_path])


def test_the_sets_of_the_published_suites_are_known() -> None:
    suites: dict[str, set[str]] = {}
    for known in datasets():
        get_protocol(known.protocol)
        assert known.page.startswith("https://")
        assert known.pairs > 0
        assert known.layout
        assert all(str(parse_chain(chain)) for chain in known.degrade)
        for suite in known.suites:
            suites.setdefault(suite, set()).add(known.name)
    assert len(suites["daclip-10"]) == 10
    assert len({get_dataset(name).task for name in suites["daclip-10"]}) == 10
    assert suites["3-task"] == {"cbsd68", "rain100l", "sots-outdoor"}
    assert suites["5-task"] == {"cbsd68", "rain100l", "sots-outdoor", "gopro", "lol"}
    others = {"kodak24", "urban100", "live1", "sots-indoor", "cc15", "polyu", "set5-x3", "set14-x3"}
    assert others <= {known.name for known in datasets()}


def test_known_names_are_those_of_the_published_files() -> None:
    lol = ["1", "22", "23", "55", "79", "111", "146", "179", "493", "547", "665", "669", "748", "778", "780"]
    assert get_dataset("lol").names == names_hash(lol)
    assert get_dataset("kodak24").names == names_hash([f"kodim{i:02}" for i in range(1, 25)])
    assert get_dataset("urban100").names == names_hash([f"img_{i:03}" for i in range(1, 101)])
    assert get_dataset("sots-indoor").names == names_hash([f"{s}_{h}" for s in range(1400, 1450) for h in range(1, 11)])


def test_an_unknown_set_names_the_closest() -> None:
    with pytest.raises(UsageError) as caught:
        get_dataset("rain10h")
    assert "rain100h" in caught.value.hint


def test_an_own_set_is_a_small_file(lay: Callable[..., Path]) -> None:
    root = lay("bad/1.png", "good/1.png")
    own = root / "mine.toml"
    own.write_text('[[dataset]]\nname = "mine"\ntask = "rain"\nlq = "bad"\ngt = ["good"]\nprotocol = "rain-y"\n')
    known = get_dataset(str(own))
    assert (known.name, known.protocol, known.task) == ("mine", "rain-y", "rain")
    found = between(Path(known.lq), [Path(folder) for folder in known.gt])
    assert [pair.name for pair in found.pairs] == ["1"]


def test_mistakes_in_a_set_are_named_together(tmp_path: Path) -> None:
    text = (
        '[[dataset]]\nname = "x"\ntask = "rainn"\nprotocol = "no"\npairs = "many"\ncolour = 1\ndegrade = ["nois(5)"]\n'
    )
    with pytest.raises(IrtoolError) as caught:
        parse(text, "mine.toml")
    for part in ("rainn", "no", "pairs: expected int", "unknown key 'colour'", "nois"):
        assert part in caught.value.message
    own = tmp_path / "mine.toml"
    own.write_text(text)
    with pytest.raises(UsageError):
        get_dataset(str(own))
    own.write_text('[[dataset]]\nname = "x"\n')
    with pytest.raises(UsageError, match="where its pictures are"):
        get_dataset(str(own))
