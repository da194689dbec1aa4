"""What irtool did is recorded in the picture, beside all that its XMP said before."""

from __future__ import annotations

import hashlib
import json
import xml.dom.minidom

import numpy as np
import pytest
from PIL import Image

import irtool
from irtool import provenance
from irtool.fileio import sha256
from irtool.picture import Picture, encode, read, xmp
from irtool.plan import Plan, Step, Upscale

PACKET = (
    b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="image/jpeg">\n'
    b'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">T\xc3\xbcr &amp; Tor</rdf:li></rdf:Alt></dc:title>\n'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>\n<?xpacket end='w'?>"
)
RECORD = provenance.Provenance("1.2", {"steps": [{"mixture": {"rain": 1.0}}]}, {"m": "ab", "n": None}, "cd")


def with_record(packet, record=RECORD):
    return provenance.recorded(Picture(np.zeros((2, 2, 3), np.float32), xmp=packet), record)


@pytest.mark.parametrize("packet", [None, PACKET])
def test_a_record_is_read_back(packet):
    written = with_record(packet).xmp
    xml.dom.minidom.parseString(written)
    assert provenance.read(written) == RECORD


def test_all_that_a_packet_said_stays_byte_for_byte():
    written = with_record(PACKET).xmp
    start, end = written.find(b'<rdf:Description rdf:about="" xmlns:rdf'), written.find(b"</rdf:RDF>")
    assert written[:start] + written[end:] == PACKET


def test_a_second_record_replaces_the_first():
    newer = provenance.Provenance("1.3", {}, {}, "ef")
    written = with_record(with_record(PACKET).xmp, newer).xmp
    assert provenance.read(written) == newer
    assert written.count(b"irtool:Version>") == 2 and "Tür &amp; Tor".encode() in written


def test_a_record_that_another_program_wrote_anew_is_read_and_replaced():
    theirs = PACKET.replace(
        b'dc:format="image/jpeg"', b'dc:format="image/jpeg" xmlns:i="urn:irtool:xmp:1.0/" i:Version="0.9" i:Plan="{}"'
    )
    assert provenance.read(theirs) == provenance.Provenance("0.9")
    written = with_record(theirs).xmp
    assert provenance.read(written) == RECORD and b"0.9" not in written and b'dc:format="image/jpeg"' in written


@pytest.mark.parametrize("packet", [b"no packet", b"\xff\xfe<\0x\0", b'<x xmlns:i="urn:irtool:xmp:1.0/"><broken>'])
def test_a_packet_that_cannot_be_edited_is_kept_and_told_of(packet):
    done = with_record(packet)
    assert done.xmp == packet and "not recorded" in done.notes[-1]
    assert provenance.read(packet) is None


@pytest.mark.parametrize("text", ["[", "[1]", "1", "null", "[" * 100_000, '{"a":' * 5000])
def test_a_hostile_plan_is_no_plan(text):
    values = {"Version": "1", "Plan": text, "Models": text}
    packet = xmp.with_properties(None, provenance.NAMESPACE, "irtool", values)
    assert provenance.read(packet) == provenance.Provenance("1")


def test_a_record_names_no_folder_of_the_machine(tmp_path):
    weights = tmp_path / "secret" / "w.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"x")
    step = Step({"rain": 1}, f"local:{weights}", 1 / 3, controller=f"local:{weights}", adapter=str(weights))
    record = provenance.of(Plan((step,), upscale=Upscale(2, f"local:{weights}")))
    assert "secret" not in json.dumps(record.to_dict())
    assert record.models == {"local:w.safetensors": sha256(weights)}
    assert record.plan["steps"][0]["strength"] == 0.3333
    assert str(Plan.from_dict(record.plan)).startswith("undo rain with w.safetensors")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_outputs_say_what_was_done(cli, using, photo, models_dir, tmp_path, suffix):
    source = photo(tmp_path / f"a{suffix}")
    with_title = encode(irtool.picture.read(source), suffix) if suffix == ".tif" else None
    if with_title is None:
        picture = read(source)
        source.write_bytes(encode(Picture(picture.pixels, format=picture.format, xmp=PACKET), suffix))
    done = cli("restore", source, "--task", "derain", env=using("rain"))
    assert done.returncode == 0, done.stderr
    target = tmp_path / f"a.restored{suffix}"
    told = cli("info", target, "--json")
    assert told.returncode == 0, told.stderr
    record = json.loads(told.stdout.splitlines()[0])
    assert record["irtool"]["version"] == irtool.__version__
    assert record["irtool"]["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["irtool"]["models"] == {"local:restorer.safetensors": sha256(models_dir / "restorer.safetensors")}
    assert list(record["irtool"]["plan"]["steps"][0]["mixture"]) == ["rain"]
    if with_title is None:
        assert "Tür &amp; Tor".encode() in read(target).xmp
    words = cli("info", target).stdout
    assert f"irtool {irtool.__version__}: undo rain with local:restorer.safetensors" in words
    assert str(models_dir) not in words
    # The same once more gives the same bytes; and none of it under --strip.
    before = target.read_bytes()
    assert cli("restore", source, "--task", "derain", "--existing", "overwrite", env=using("rain")).returncode == 0
    assert target.read_bytes() == before
    done = cli("restore", source, "--task", "derain", "--strip", "--existing", "overwrite", env=using("rain"))
    assert done.returncode == 0 and read(target).xmp is None
    assert "no record of irtool" in cli("info", target).stdout


def test_an_untouched_picture_gets_no_record(cli, using, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    assert cli("restore", source, "--format", "webp", env=using("clean")).returncode == 0
    assert read(tmp_path / "a.restored.webp").xmp is None


def test_info_goes_on_past_what_it_cannot_read(cli, photo, tmp_path):
    photo(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff no picture")
    done = cli("info", tmp_path, "--json")
    assert done.returncode == 1 and "b.jpg" in done.stderr
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["image", "image", "summary"]
    assert cli("info", tmp_path / "none.jpg").returncode == 1
    assert cli("info", tmp_path / "*.tif").returncode == 4


def test_the_api_records_too(models_dir, photo, tmp_path):
    source = photo(tmp_path / "a.png")
    model = f"local:{models_dir / 'restorer.safetensors'}"
    result = irtool.restore(source, tasks="derain", model=model)
    assert result.source_sha256 == sha256(source)
    record = provenance.read(read(result.save(tmp_path / "b.png")).xmp)
    assert record is not None and record.source_sha256 == sha256(source)
    array = np.asarray(Image.open(source))
    of_array = read(irtool.restore(array, tasks="derain", model=model).encode("png"))
    assert provenance.read(of_array.xmp).source_sha256 == ""
