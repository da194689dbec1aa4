"""Headers of model files, pickles, recipes, tables, runs and answers of a hub, made up and mutated: each is taken or
refused by an error of irtool's own, in bounded time. Some hundred of each here; a minute of each with ``-m slow``.
"""

from __future__ import annotations

import io
import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save as to_safetensors

from irtool import tables
from irtool.data.registry import parse as parse_datasets
from irtool.errors import IrtoolError
from irtool.evaluation import compare, read_run
from irtool.models import architectures, loading
from irtool.training import pictures, recipe
from irtool.weights import convert, hub, registry
from irtool.weights import transfer as transfers

SECONDS = float(os.environ.get("IRTOOL_FUZZ_SECONDS", "60"))
SLOWEST = 20.0
"""Seconds of CPU time for one input."""
QUICK = 60

text = st.text(max_size=30)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, 1, -1, 10**9, 2**31, 10**400]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=12,
)


def tried(target: Callable[[Any], None], strategy: st.SearchStrategy[Any], examples: int, number: int = 0) -> None:
    """Give a target many inputs; whatever it raises that is not irtool's own fails, and so does a slow one."""

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(data: Any) -> None:
        begun = time.process_time()
        try:
            target(data)
        except IrtoolError as error:
            assert "a bug in irtool" not in error.message
        assert time.process_time() - begun < SLOWEST

    run()


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with some bytes changed, cut out, doubled or put in."""

    @st.composite
    def made(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(1, 6))):
            at = draw(st.integers(0, max(len(data) - 1, 0)))
            match draw(st.integers(0, 3)):
                case 0:
                    data[at : at + 1] = bytes([draw(st.integers(0, 255))])
                case 1:
                    del data[at : at + draw(st.integers(1, 40))]
                case 2:
                    data[at:at] = data[at : at + draw(st.integers(1, 40))]
                case _:
                    data[at:at] = draw(st.binary(max_size=8))
        return bytes(data)

    return made()


def header_of(tensors: dict[str, Any], notes: dict[str, str]) -> bytes:
    """A safetensors file with a header of one's own making and as many bytes as it says."""
    head = json.dumps({"__metadata__": notes, **tensors}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(256)


def loaded(folder: Path) -> Callable[[Any], None]:
    def target(data: bytes) -> None:
        path = folder / "net.safetensors"
        path.write_bytes(data)
        _, header = loading.read(path)
        registry.companions(f"local:{path}", header["architecture"], header)

    return target


def described() -> st.SearchStrategy[bytes]:
    """Headers that name an architecture, with configurations, aliases and companions of any shape."""
    notes = st.fixed_dictionaries(
        {"architecture": st.sampled_from([*architectures.names(), "x"]), "config": values.map(json.dumps)},
        optional={key: values.map(json.dumps) for key in ("aliases", "settings", "needs", "tasks", "thresholds")},
    )
    tensor = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "I64", "BF16", "X"]),
            "shape": st.lists(st.integers(-1, 2**40), max_size=4),
            "data_offsets": st.tuples(st.integers(-1, 300), st.integers(-1, 2**40)).map(list),
        }
    )
    return st.builds(header_of, st.dictionaries(text, tensor, max_size=3), notes)


def shaped() -> st.SearchStrategy[dict[str, tuple[int, ...]]]:
    """The names of a family with shapes of any kind."""
    keys = [architectures.get(name).keys for name in architectures.names() if architectures.get(name).keys]
    shape = st.lists(st.integers(0, 600), max_size=5).map(tuple)
    return st.sampled_from(keys).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, shape)))


def opened(folder: Path) -> Callable[[Any], None]:
    def target(data: bytes) -> None:
        path = folder / "net.pth"
        path.write_bytes(data)
        convert.read_published(path)

    return target


def pickled() -> list[bytes]:
    made = []
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        for weights in ({"a.weight": torch.zeros(3, 4)}, {"state_dict": {"module.a": torch.ones(2)}, "epoch": 3}):
            buffer = io.BytesIO()
            torch.save(weights, buffer, **options)
            made.append(buffer.getvalue())
    return made


RECIPE = {"weights": {"noise": 1.0}, "phases": [{"until": 1.0, "crop": 32, "batch": 4}], "model": {"width": 8}}


def recipes() -> st.SearchStrategy[dict[str, Any]]:
    """Recipes with keys that are known and values of any kind."""
    known = st.sampled_from([*recipe.Recipe.__dataclass_fields__, "x"])
    phase = st.dictionaries(st.sampled_from(["until", "crop", "batch", "x"]), values, max_size=4)
    changes = st.dictionaries(known, st.one_of(values, st.lists(phase, max_size=2)), max_size=5)
    model = st.dictionaries(
        st.sampled_from(["width", "encoder", "middle", "decoder", "rank", "hidden"]), values, max_size=3
    )
    return st.tuples(changes, model).map(lambda both: {**RECIPE, "model": both[1], **both[0]})


def checked(table: dict[str, Any]) -> None:
    made, problems = recipe.check(table)
    assert made is not None or problems


def text_of(parse: Callable[[str, str], object]) -> Callable[[Any], None]:
    def target(data: bytes) -> None:
        parse(data.decode("utf-8", "replace"), "fuzz")

    return target


def run_of(folder: Path) -> Callable[[Any], None]:
    def target(lines: list[Any]) -> None:
        path = folder / "run.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = read_run(path)
        compare(run, run)

    return target


def runs() -> st.SearchStrategy[list[Any]]:
    side = st.one_of(values, st.dictionaries(st.sampled_from(["psnr", "ssim"]), st.one_of(st.floats(0, 99), values)))
    record = st.fixed_dictionaries(
        {"type": st.just("image"), "name": st.one_of(text, values), "input": side, "output": side},
        optional={k: values for k in ("error", "content", "seconds", "width", "height", "peak_bytes")},
    )
    head = st.fixed_dictionaries({"type": st.sampled_from(["run", "x"])}, optional={"model": values})
    return st.tuples(head, st.lists(st.one_of(record, values), max_size=3)).map(lambda both: [both[0], *both[1]])


def listed(folder: Path) -> Callable[[Any], None]:
    def target(data: bytes) -> None:
        path = folder / "list.csv"
        path.write_bytes(data)
        pictures.manifest(path, ("clean",))

    return target


def announced(headers: dict[str, str]) -> None:
    note = transfers.Announced(1000)
    try:
        transfers._note(note, headers, is_redirect=False)
    except OSError:
        return
    assert "/" not in note.etag and "\\" not in note.etag and ".." not in note.etag and "\0" not in note.etag
    assert note.size is None or 0 <= note.size <= 1000


def headers() -> st.SearchStrategy[dict[str, str]]:
    value = st.one_of(
        text, st.sampled_from(['"a"', 'W/"b"', "../x", "/etc/x", "9" * 50, "-1", "12", '"../../x"', "a" * 40])
    )
    return st.dictionaries(st.sampled_from([*transfers._NAMES, "x-linked-size", "content-length"]), value, max_size=5)


def named(name: str) -> None:
    if hub._is_safe(name):
        assert not Path(name).is_absolute() and ".." not in Path(name).parts and "\0" not in name


TOML = [
    b'[[weights]]\nid = "a.v1"\nfamily = "compact"\nfile = "asset:a.safetensors"\nbytes = 1\nlicence = "MIT"\n'
    b'origin = "x"\ntasks = ["rain"]\n',
    b'[[dataset]]\nname = "x"\ntask = "rain"\ngt = ["a"]\ninput = { psnr = 1.0 }\npairs = 3\n',
]


def targets(folder: Path) -> Iterator[tuple[str, Callable[[Any], None], st.SearchStrategy[Any]]]:
    """Name, target and inputs of everything that strangers write."""
    whole = to_safetensors({"fc1.weight": torch.zeros(4, 384)}, metadata={"architecture": "compact", "config": "{}"})
    yield "safetensors", loaded(folder), st.one_of(mutated([whole]), described())
    yield "shapes", loading.recognize, shaped()
    yield "pickles", opened(folder), mutated(pickled())
    yield "recipes", checked, recipes()
    yield "records", text_of(registry.parse), mutated(TOML)
    yield "datasets", text_of(parse_datasets), mutated(TOML)
    yield "toml", text_of(tables.parse_toml), mutated(TOML)
    yield "runs", run_of(folder), runs()
    yield "lists", listed(folder), mutated([b"file,licence\na.png,CC0\n", b"clean;x\na;b\n", b'clean\tx\n"a\tb\n'])
    yield "hub headers", announced, headers()
    yield "hub names", named, st.one_of(text, st.sampled_from(["a/../b", "/a", "a\\b", "a/b.pth", "..", "a\0"]))


NAMES = [name for name, *_ in targets(Path())]


@pytest.mark.parametrize("name", NAMES)
def test_what_strangers_write_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    target, strategy = next(one[1:] for one in targets(tmp_path) if one[0] == name)
    tried(target, strategy, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_minute_of_what_strangers_write(name: str, tmp_path: Path) -> None:
    target, strategy = next(one[1:] for one in targets(tmp_path) if one[0] == name)
    end, number = time.monotonic() + SECONDS, 1
    while time.monotonic() < end:
        tried(target, strategy, 200, number)
        number += 1
