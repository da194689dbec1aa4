from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from irtool import weights
from irtool.errors import IrtoolError, UnavailableError, UsageError
from irtool.weights import refresh, registry
from irtool.weights.registry import File, Record, parse

GOOD = """
# a remark that stays
[[weights]]
id = "a.v1"
family = "compact"
file = "asset:a.v1.safetensors"
bytes = 1
sha256 = "{zeros}"
licence = "Apache-2.0"
origin = "test"
tasks = ["rain"]

[[weights]]
id = "b.v1"
family = "detector"
file = "asset:b.v1.safetensors"
bytes = 2
sha256 = "{zeros}"
licence = "Apache-2.0"
origin = "test"
tasks = ["snow", "rain"]
""".replace("{zeros}", "0" * 64)


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package folder of its own, with an empty assets folder."""
    (tmp_path / "assets").mkdir()
    monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
    return tmp_path


def test_the_registry_holds_the_defaults():
    known = {r.id: r for r in weights.records()}
    assert known[weights.DEFAULT_RESTORER].family == "compact"
    assert known[weights.DEFAULT_DETECTOR].family == "detector"


@pytest.mark.parametrize("id", [weights.DEFAULT_RESTORER, weights.DEFAULT_DETECTOR, "irtool-nano.v1"])
def test_the_weights_ship_and_are_intact(id):
    record = weights.get(id)
    weights.verify(record)
    assert weights.state(record) == "here"
    assert weights.locate(id) == record.path


def test_what_ships_stays_small():
    assert all(0 < (r.bytes or 0) < 16e6 for r in weights.records() if r.kind == "asset")
    assert sum(r.bytes or 0 for r in weights.records() if r.kind == "asset") < 42e6


def test_records_are_read_as_written():
    a, b = parse(GOOD, "test")
    assert a.id == "a.v1" and a.tasks == ("rain",) and a.bytes == 1
    assert b.family == "detector" and b.path.name == "b.v1.safetensors"


def test_every_mistake_is_named_at_once():
    text = GOOD.replace('family = "compact"', 'family = "compakt"').replace("bytes = 1", "bytes = -1")
    text = text.replace('id = "b.v1"', 'id = "a.v1"').replace('["snow", "rain"]', '["snwo", 3]')
    text = text.replace("asset:a.v1.safetensors", "../a.pth").replace('"' + "0" * 64, '"xyz', 1)
    with pytest.raises(IrtoolError) as raised:
        parse(text, "weights.toml")
    for part in ("compakt", "bytes", "twice", "snwo", "../a.pth", "sha256", "weights.toml has 7 problem"):
        assert part in raised.value.message


PUBLISHED = """
[[weights]]
id = "net.one"
family = "universal-unet"
file = "hf-hub:acme/nets@main:folder/net one.pth"
licence = "MIT"
origin = "test"
tasks = []
needs = ["net.two"]
settings = { max_sigma = 50 }

[[weights]]
id = "net.two"
family = "uretinex"
licence = "NOASSERTION"
origin = "test"
tasks = ["lowlight"]
page = "https://example.org"
allow = ["argparse.Namespace"]
[[weights.files]]
file = "https://example.org/a.pth"
bytes = 2
sha256 = "{zeros}"
state = "state_dict.model_R"
prefix = "R."
[[weights.files]]
file = "https://example.org/a.pth"
bytes = 2
sha256 = "{zeros}"
state = "state_dict.model_L"
prefix = "L."
[[weights.files]]
file = "https://example.org/b.pth"
bytes = 3
sha256 = "{zeros}"
""".replace("{zeros}", "0" * 64)


def test_records_of_published_files_are_read_as_written(monkeypatch):
    one, two = parse(PUBLISHED, "test")
    assert (one.kind, one.bytes, one.files[0].name) == ("hf-hub", None, "net one.pth")
    assert one.needs == ("net.two",) and one.settings == {"max_sigma": 50}
    assert (two.kind, two.bytes, len(two.originals), two.allow) == ("https", 5, 2, ("argparse.Namespace",))
    assert [(f.state, f.prefix) for f in two.files[:2]] == [("state_dict.model_R", "R."), ("state_dict.model_L", "L.")]
    # What a converted file is made of is in its name.
    again = parse(PUBLISHED.replace("max_sigma = 50", "max_sigma = 10"), "test")[0]
    assert weights.converted(one) != weights.converted(again) and weights.converted(one).name.startswith("net.one-")
    monkeypatch.setattr(registry, "records", lambda: (one, two))
    assert weights.get("net") is one and weights.get("net.two") is two


def test_every_mistake_of_published_records_is_named_at_once():
    text = PUBLISHED.replace("@main:folder/net one.pth", "") + '\n[[weights]]\nid = "Three"\nfile = "manual:x.pth"\n'
    text += 'family = "uretinex"\nlicence = ""\norigin = ""\ntasks = []\nfiles = 3\n'
    text += text[text.index('[[weights]]\nid = "Three') :].replace("files = 3\n", "")
    text = text.replace("argparse.Namespace", "os.system").replace('["net.two"]', '["net.too"]')
    text = text.replace('prefix = "R."', 'prefix = 3\nsate = ""').replace('file = "https://example.org/b.pth"\n', "", 1)
    text = text.replace("bytes = 3", "bytes = -3")
    with pytest.raises(IrtoolError) as raised:
        parse(text, "weights.toml")
    for part in (
        "net.one: file 'hf-hub:acme/nets' is not",
        "net.one: unknown needs: net.too",
        ": prefix: expected str, found int",
        ": unknown key 'sate', did you mean 'state'?",
        "'file' is missing",
        "net.two: unknown allow: os.system",
        "Three: files: expected tables, found int",
        "Three: an id is NAME.TAG",
        "Three: a file that is fetched by hand needs a 'page'",
        "Three: the id is used twice",
    ):
        assert part in raised.value.message, part


def test_missing_unknown_and_mistyped_keys_are_named():
    text = GOOD.replace("licence =", "license =").replace("bytes = 2", 'bytes = "2"')
    with pytest.raises(IrtoolError) as raised:
        parse(text, "t")
    for part in ("'license', did you mean 'licence'", "'licence' is missing", "bytes: expected int, found str"):
        assert part in raised.value.message


@pytest.mark.parametrize("text", ["[[weights", "weights = 3", "weights = [3]"])
def test_what_is_no_registry_is_an_error(text):
    with pytest.raises(IrtoolError):
        parse(text, "t")


def test_unknown_ids_get_the_closest_match():
    with pytest.raises(UsageError) as raised:
        weights.get("irtool-smal.v1")
    assert "irtool-small.v1" in raised.value.hint


def test_a_missing_or_altered_file_is_not_loaded(package):
    file = File("asset:x.safetensors", 3, hashlib.sha256(b"abc").hexdigest())
    record = Record("x.v1", "compact", (file,), licence="", origin="")
    assert weights.state(record) == "missing"
    with pytest.raises(UnavailableError, match="missing"):
        weights.verify(record)
    record.path.write_bytes(b"abd")
    with pytest.raises(UnavailableError, match="not the registered"):
        weights.verify(record)
    record.path.write_bytes(b"abc")
    weights.verify(record)
    assert weights.state(record) == "here"


def test_local_files_are_taken_by_path(tmp_path):
    path = tmp_path / "ö.safetensors"
    with pytest.raises(UnavailableError):
        weights.locate(f"local:{path}")
    path.write_bytes(b"")
    assert weights.locate(f"local:{path}") == path


def test_refresh_rewrites_size_and_hash_and_nothing_else(package):
    table = package / "weights.toml"
    table.write_text(GOOD)
    (package / "assets" / "b.v1.safetensors").write_bytes(b"hello")
    told = refresh.refresh(table)
    assert "absent" in told[0] and "5 bytes" in told[1]
    a, b = parse(table.read_text(), "t")
    assert (a.bytes, a.files[0].sha256) == (1, "0" * 64)
    assert (b.bytes, b.files[0].sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    changed = [(x, y) for x, y in zip(GOOD.splitlines(), table.read_text().splitlines(), strict=True) if x != y]
    assert [x.split(" = ")[0] for x, _ in changed] == ["bytes", "sha256"]


def test_the_table_is_found_beside_the_package_and_inside_an_installed_one(package):
    assert registry.table_path() == package.parent / "weights.toml"
    (package / "weights.toml").write_text(GOOD)
    assert registry.table_path() == package / "weights.toml"
