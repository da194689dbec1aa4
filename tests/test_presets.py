"""Presets, the user's configuration, and what goes before what."""

from __future__ import annotations

import inspect
import json

import pytest

from irtool import settings
from irtool.cli import app, presets
from irtool.cli.instruct import instruct
from irtool.cli.restore import restore
from irtool.errors import UsageError


def plan(done) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])["plan"]


@pytest.fixture
def home(tmp_path):
    """A folder of configuration, and the variables that name it."""
    folder = tmp_path / "configuration"
    (folder / "presets").mkdir(parents=True)
    return folder


@pytest.fixture
def run(cli, using, photo, tmp_path, home):
    source = photo(tmp_path / "a.png")

    def restored(*arguments, env=None):
        variables = using("rain") | {"IRTOOL_CONFIG": str(home)} | (env or {})
        return cli("restore", source, "--dry-run", "--json", *arguments, env=variables)

    return restored


def test_an_option_comes_from_the_first_place_that_sets_it(run, home):
    def strength(*arguments, env=None):
        return plan(run("--task", "denoise", *arguments, env=env))["steps"][0]["strength"]

    assert strength() == 1
    (home / "config.toml").write_text("strength = 0.2\n")
    assert strength() == 0.2
    (home / "presets" / "mine.toml").write_text("strength = 0.4\n")
    assert strength("--preset", "mine") == 0.4
    assert strength("--preset", "mine", env={"IRTOOL_STRENGTH": "0.6"}) == 0.6
    assert strength("--preset", "mine", "--strength", "0.8", env={"IRTOOL_STRENGTH": "0.6"}) == 0.8


def test_a_preset_is_named_by_the_command_line_the_environment_or_the_configuration(run, home, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('task = ["denoise", "dejpeg"]\nstrength = 0.5\n')
    (home / "presets" / "mine.toml").write_text('task = "derain"\n')
    (home / "config.toml").write_text('preset = "mine"\n')

    def removed(*arguments, env=None):
        return list(plan(run(*arguments, env=env))["steps"][0]["mixture"])

    assert removed("--preset", file) == ["jpeg", "noise"] or removed("--preset", file) == ["noise", "jpeg"]
    assert removed() == ["rain"]
    assert sorted(removed(env={"IRTOOL_PRESET": str(file)})) == ["jpeg", "noise"]


def test_what_is_said_on_the_command_line_replaces_what_excludes_it(run, home):
    (home / "presets" / "mine.toml").write_text('task = ["denoise"]\njobs = "2"\n')
    assert list(plan(run("--preset", "mine"))["steps"][0]["mixture"]) == ["noise"]
    assert list(plan(run("--preset", "mine", "--auto"))["steps"][0]["mixture"]) == ["rain"]
    (home / "config.toml").write_text("auto = true\n")
    assert list(plan(run("--preset", "mine"))["steps"][0]["mixture"]) == ["noise"]


def test_the_configuration_is_not_in_the_way_of_other_verbs_and_tasks(run, home, photo, tmp_path):
    (home / "config.toml").write_text('strength = 0.5\nmax-memory = "2GB"\nname = "{stem}-{tasks}{ext}"\njobs = "2"\n')
    done = run("--task", "hdr", "-o", tmp_path / "x.png")  # one exposure is too few, and that is all that is wrong
    assert done.returncode == 2 and "2 or 3 exposures" in done.stderr
    assert plan(run("--task", "denoise", "-o", tmp_path / "x.png"))["steps"]
    done = run("--watch", "-o", tmp_path / "out")
    assert done.returncode == 2 and "--jobs" not in done.stderr


def test_instruct_takes_all_but_what_the_words_say(cli, using, photo, tmp_path, home):
    (home / "presets" / "mine.toml").write_text('task = ["derain"]\nstrength = 0.5\n')
    done = cli("instruct", photo(tmp_path / "a.png"), "remove the noise", "--preset", "mine", "--dry-run", "--json",
               env=using("rain") | {"IRTOOL_CONFIG": str(home)})  # fmt: skip
    step = plan(done)["steps"][0]
    assert list(step["mixture"]) == ["noise"] and step["strength"] == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("strenght = 0.5\n", "unknown key 'strenght', did you mean 'strength'?"),
        ("strength = 1.5\n", "strength: 0 or more and at most 1"),
        ('strength = "much"\n', "strength: expected float, found str"),
        ('task = ["denoize"]\n', "denois"),
        ('existing = "owerwrite"\n', "Did you mean 'overwrite'?"),
        ('max-memory = "lots"\n', "is no size"),
        ('name = "{stem}/{ext}"\n', "which no file name should"),
        ('preset = "gentle"\n', "names no other preset"),
        ("task = [\n", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_preset_names_the_file_and_the_way_out(run, home, text, told):
    path = home / "presets" / "mine.toml"
    path.write_text(text)
    done = run("--preset", "mine")
    assert done.returncode == 2 and str(path) in done.stderr and told in done.stderr, done.stderr


def test_a_mistake_in_the_configuration_is_said_by_all_that_read_it_but_help(run, cli, home):
    (home / "config.toml").write_text("devise = 'cpu'\n")
    done = run()
    assert done.returncode == 2 and "config.toml" in done.stderr and "did you mean 'device'?" in done.stderr
    assert run("--help").returncode == 0
    told = json.loads(cli("doctor", "--json", env={"IRTOOL_CONFIG": str(home)}).stdout)["settings"]
    assert "did you mean 'device'?" in told["error"]


def test_an_unknown_preset_gets_the_closest_and_a_missing_file_an_error(run, tmp_path):
    done = run("--preset", "old-foto")
    assert done.returncode == 2 and "Did you mean 'old-photo'?" in done.stderr
    done = run("--preset", tmp_path / "none.toml")
    assert done.returncode != 0 and "none.toml" in done.stderr and "Traceback" not in done.stderr


def test_doctor_prints_the_precedence_and_what_is_set(cli, home):
    (home / "config.toml").write_text('device = "cpu"\nmax-memory = "2GB"\npreset = "gentle"\n')
    told = json.loads(cli("doctor", "--json", env={"IRTOOL_CONFIG": str(home)}).stdout)["settings"]
    assert told["precedence"].startswith("command line > environment")
    assert told["precedence"].endswith("preset > user configuration > default")
    assert (told["device"], told["max-memory"], told["preset"]) == ("cpu", "2GB", "gentle")
    assert told["configuration"] == str(home / "config.toml")


def test_presets_are_listed_shown_and_saved(cli, run, home):
    env = {"IRTOOL_CONFIG": str(home)}
    for arguments in (("presets",), ("presets", "list")):
        listed = cli(*arguments, env=env)
        assert listed.returncode == 0
        assert all(name in listed.stdout for name in ("old-photo", "phone-night", "scan", "web-jpeg", "gentle"))
    done = cli("presets", "save", "mine", "--about", 'my "own"', "--task", "denoise,derain", "--strength", "0.5",
               "--max-memory", "2GB", "--strip", env=env)  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(cli("presets", "show", "mine", "--json", env=env).stdout)
    assert shown["about"] == 'my "own"'
    assert shown["options"] == {"task": ["denoise,derain"], "strength": 0.5, "max_memory": "2GB", "strip": True}
    assert "max-memory" in cli("presets", "show", "mine", env=env).stdout
    assert plan(run("--preset", "mine"))["steps"][0]["strength"] == 0.5
    # One preset may begin with another; what excludes its way of saying what is done replaces it.
    assert cli("presets", "save", "more", "--preset", "mine", "--auto", env=env).returncode == 0
    assert settings.parse(settings.read_toml(home / "presets" / "more.toml"), "").to_dict() == {
        "auto": True, "strength": 0.5, "max_memory": "2GB", "strip": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gentle", "--strength", "0.5"), "already"),
        (("../x", "--strength", "0.5"), "no name of a preset"),
        (("x.toml", "--strength", "0.5"), "no name of a preset"),
        (("x", "--strength", "5"), "strength"),
        (("x", "--task", "denoize"), "denoise"),
        (("x", "--output", "o"), "--output is of one run"),
        (("x", "--strenth", "0.5"), "--strenth"),
        (("x",), "No option"),
    ],
)
def test_what_cannot_be_saved_is_said_and_nothing_is_written(cli, home, arguments, told):
    done = cli("presets", "save", *arguments, env={"IRTOOL_CONFIG": str(home)})
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert list((home / "presets").iterdir()) == []


def test_the_presets_that_ship_are_sound_and_say_what_they_are_for():
    for name, path in settings.presets().items():
        kept = settings.load(name)
        presets._check(kept, path)
        assert kept.about and kept.to_dict(), name


def test_every_key_is_an_option():
    own = set(inspect.signature(restore).parameters) | set(inspect.signature(instruct).parameters)
    assert set(settings.KEYS) - own == {"about"}
    # And every lasting option, which has a variable of the environment, is a key.
    import typer

    verbs = typer.main.get_command(app.app).commands
    lasting = {p.name for verb in ("restore", "instruct") for p in verbs[verb].params if getattr(p, "envvar", None)}
    assert lasting <= set(settings.KEYS)


def test_both_spellings_of_a_key_are_one():
    assert settings.parse({"max-memory": "2GB"}, "x") == settings.parse({"max_memory": "2GB"}, "x")
    with pytest.raises(UsageError, match=r"^x has 2 problem"):
        settings.parse({"a": 1, "quality": 0}, "x")
