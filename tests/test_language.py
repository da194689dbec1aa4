"""Words to wishes to plans: numbers, rules, word lists, the text model that ships."""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from irtool.degradation import IDS
from irtool.errors import UnavailableError, UsageError
from irtool.language import Wish, index, load, plan_wishes, understand
from irtool.language.evidence import speaks
from irtool.language.grammar import BESIDE, Composer, Mark
from irtool.language.labels import ACTS, KINDS, LEVELS, ORDERS, OUTSIDE
from irtool.language.lists import LANGUAGES, WIDE
from irtool.language.packing import pack, unpack
from irtool.language.phrases import settle
from irtool.language.plain import plain
from irtool.language.rephrase import rephrase, written_out
from irtool.language.score import cases, same, table, told
from irtool.language.sentences import compose, make, misspell
from irtool.language.spelling import mend
from irtool.language.tagger import Tagger, Tags
from irtool.language.tokens import MOST_TOKENS, features, normalise, tokenise
from irtool.language.understand import read, steady
from irtool.language.wish import Own, check, looks
from irtool.weights import locate

FILE = Path(__file__).parent / "instructions.tsv"


class Found:
    """Stands for a Diagnosis, which would need torch."""

    def __init__(self, **scores: float) -> None:
        self.scores = dict.fromkeys(IDS, 0.0) | scores
        self.present = tuple(sorted(scores, key=lambda i: -scores[i]))
        self.is_clean = not scores


# Numbers and words


@pytest.mark.parametrize(
    ("text", "share", "percent"),
    [
        ("50%", 0.5, True),
        ("50 %", 0.5, True),
        ("12,5 Prozent", 0.125, True),
        ("fifty percent", 0.5, True),
        ("ochenta por ciento", 0.8, True),
        ("30パーセント", 0.3, True),
        ("3割", 0.3, True),
        ("百分之二十五", 0.25, True),
        ("百分之百", 1.0, True),
        ("七成", 0.7, True),
        ("0.3", 0.3, False),
        ("40", 0.4, False),
        ("４０％", 0.4, True),
        ("300%", None, True),
        ("a third", 0.33, True),
        ("ein Drittel", 0.33, True),
        ("deux tiers", 0.67, True),
        ("三分之一", 0.33, True),
        ("12800", None, False),
    ],
)
def test_numbers_that_can_be_shares(text, share, percent):
    (token,) = tokenise(normalise(text))
    assert (token.share is None) == (share is None) and token.percent == percent
    assert share is None or abs(token.share - share) < 1e-9


@pytest.mark.parametrize(
    "text",
    ["ISO 100", "QF=8", "quality 10", "shake at 1/8 s", "f/22", "sigma roughly 25", "2 stops", "50 kB", "3 am",
     "the quality setting was 10", "40 K"],
)  # fmt: skip
def test_numbers_of_cameras_and_files_are_no_shares(text):
    assert all(token.share is None for token in tokenise(normalise(text)))
    assert [t.share for t in tokenise(normalise(f"{text}, denoise by 40")) if t.share] == [0.4]


def test_words_without_accents_case_or_fancy_quotes():
    texts = [t.text for t in tokenise(normalise("L’Image N’ÉCLAIRCIS pas! Don't, Größe"))]
    assert texts == ["l", "image", "n", "eclaircis", "pas", "!", "dont", ",", "grosse"] or texts[-1] == "große"
    assert [t.text for t in tokenise(normalise("雨を消して ok"))] == ["雨", "を", "消", "し", "て", "ok"]


def test_a_misspelt_word_shares_most_features_with_the_right_one():
    right, wrong, other = (set(features(tokenise(w))[0]) for w in ("compression", "compresion", "snowflakes"))
    assert len(right & wrong) > len(right) / 3 and not right & other


@pytest.mark.parametrize("text", ["", "   ", "?!", "🌧️", "\x00\n", "a" * 5000, "雨" * 3000, "no " * 999, "'", "l'"])
def test_anything_can_be_said(text):
    wish = understand(text)[0]
    assert len(tokenise(normalise(text))) <= MOST_TOKENS
    assert isinstance(told(wish), str)


# Word lists


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_frame_of_a_word_list_can_be_filled(language):
    composer = Composer(language, random.Random(0))
    lists = composer.words
    for kind in IDS:
        assert {"n", "a", "g", "s", "o"} - set(lists[kind]) <= ({"o"} if language in WIDE else set()), kind
    for act in ("undo", "keep", "ask"):
        for slot, frames in lists[act].items():
            for frame in frames:
                if slot != "s" or act == "undo":
                    assert f"{{{slot}}}" in frame, (act, slot, frame)
                composer.fill(frame, {slot: [("x", Mark("noise", act))]})
    assert all("{x}" in frame and "{y}" in frame for frame in (*lists["neither"]["frames"], *lists["both"]))
    assert all("{x}" in frame and "{n}" in frame for frame in lists["where"]) and lists["place"] and lists["then"]["s"]
    assert all("{x}" in frame for frame in lists["story"]) and all(lists[n] for n in ("thing", "tale", *BESIDE))
    for name in ("story", "tale", "when", *BESIDE):
        assert "{" not in "".join(composer.about([frame]) for frame in lists.get(name, ()))
    for kind in (*IDS, "auto", *OUTSIDE):
        for entries in lists[kind].values():
            assert all(entries) and len(entries) == len([e for e in entries if e.strip()])
    pieces = [make(composer) for _ in range(1200)]
    kinds = {m.kind for s in pieces for _, m in s.pieces if m}
    assert kinds >= set(IDS) | {"auto"} and kinds & set(OUTSIDE) and {s.order for s in pieces} == set(ORDERS)


def test_the_index_beside_the_lists_is_that_of_the_lists():
    held = json.loads(gzip.decompress(index.FILE.read_bytes()))
    assert held.pop("lists") == index.checksum(), "run: python -m irtool.language index"
    made = json.loads(json.dumps(asdict(index.build()), default=sorted))
    assert held == made


def test_lists_that_have_changed_are_looked_through_again(monkeypatch):
    monkeypatch.setattr(index, "checksum", lambda: "other")
    built = index.Index({}, {}, {}, {}, {}, *4 * [frozenset()])
    monkeypatch.setattr(index, "build", lambda: built)
    assert index.index.__wrapped__() is built


def test_composed_sentences_are_the_same_for_the_same_seed():
    assert compose(40, 3) == compose(40, 3) != compose(40, 4)


def test_misspelling_keeps_the_pieces_and_changes_some_words():
    pieces = (("remove the compression artifacts ", None), ("from this photograph", Mark("jpeg")))
    made = {misspell(pieces, random.Random(i), 0.5) for i in range(30)}
    assert len(made) > 20 and all([m for _, m in p] == [m for _, m in pieces] for p in made)


# Reading tags


def tags(kinds, acts=None, levels=None, order=""):
    def one_hot(values, known):
        return np.eye(len(known))[[known.index(v) for v in values]] * 0.98 + 0.02 / len(known)

    n = len(kinds)
    return Tags(
        one_hot(kinds, KINDS),
        one_hot(acts or ["undo"] * n, ACTS),
        one_hot(levels or ["full"] * n, LEVELS),
        one_hot([order], ORDERS)[0],
    )


def wish_of(text, marked, order=""):
    """`marked`: word -> (kind, act, level)."""
    said = normalise(text)
    tokens = tokenise(said)
    found = [marked.get(t.text, ("", "undo", "full")) for t in tokens]
    return read(text, said, tokens, tags(*map(list, zip(*found, strict=True)), order=order))


def test_each_figure_belongs_to_the_word_next_to_it():
    marked = {"denoise": ("noise", "undo", "number"), "deblur": ("blur", "undo", "number")}
    assert dict(wish_of("denoise 80%, deblur 40%", marked).undo) == {"noise": 0.8, "blur": 0.4}
    assert dict(wish_of("80% denoise and 40% deblur", marked).undo) == {"noise": 0.8, "blur": 0.4}
    assert dict(wish_of("ISO 100 shot, denoise it at 30 %", marked).undo) == {"noise": 0.3}
    assert dict(wish_of("denoise", marked).undo) == {"noise": 1.0}


def test_rules_of_a_wish():
    undo, keep, ask = (lambda k: (k, "undo", "full")), (lambda k: (k, "keep", "full")), (lambda k: (k, "ask", "full"))
    w = wish_of("fix it, it is noisy", {"fix": undo("auto"), "noisy": undo("noise")})
    assert dict(w.undo) == {"noise": 1.0} and w.auto is None  # the general word means the special one
    w = wish_of("derain and all the rest", {"derain": undo("rain"), "rest": undo("rest")})
    assert dict(w.undo) == {"rain": 1.0} and w.auto == 1.0
    w = wish_of("dark. brighten a little", {"dark": undo("lowlight"), "brighten": ("lowlight", "undo", "little")})
    assert dict(w.undo) == {"lowlight": 0.5}
    w = wish_of("denoise no leave noise", {"denoise": undo("noise"), "noise": keep("noise")})
    assert not w.undo and w.keep == ("noise",)
    w = wish_of("desnow leave snow on roofs", {"desnow": undo("snow"), "snow": keep("snow")})
    assert dict(w.undo) == {"snow": 1.0} and not w.keep  # that of one place is not all of it
    w = wish_of("is it noisy", {"noisy": ask("noise")})
    assert w.question and w.asked == ("noise",)
    w = wish_of("is it noisy? fix", {"noisy": ask("noise"), "fix": undo("auto")})
    assert not w.question and dict(w.undo) == {"noise": 1.0} and w.auto is None  # as does a question before it
    w = wish_of("noisy? derain", {"noisy": ask("noise"), "derain": undo("rain")})
    assert not w.question and dict(w.undo) == {"rain": 1.0}
    w = wish_of("sharpen after denoising", {"sharpen": undo("blur"), "denoising": undo("noise")}, order="backward")
    assert list(w.undo) == ["noise", "blur"] and w.ordered


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("denoise before you sharpen", "noise"), ("before you sharpen, denoise", "noise"),
        ("sharpen after denoise", "noise"), ("after denoise, sharpen", "noise"),
        ("denoise and only after that sharpen", "noise"), ("sharpen, but before that denoise", "noise"),
        ("sharpen, but not before denoise", "noise"), ("sharpen then denoise", "blur"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("guess", ["forward", "backward"])
def test_before_and_after_settle_an_order(text, first, guess):
    marked = {"denoise": ("noise", "undo", "full"), "sharpen": ("blur", "undo", "full")}
    if "then" in text and guess == "backward":
        return  # what the model says of other words stands
    assert next(iter(wish_of(text, marked, order=guess).undo)) == first
    assert wish_of(text, marked).ordered == ("only after" in text)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("start with denoise, finish with sharpen", ["noise", "blur"]),
        ("finish with sharpen, start with denoise", ["noise", "blur"]),
        ("sharpen comes last, denoise", ["noise", "blur"]), ("sharpen. denoise beforehand", ["noise", "blur"]),
        ("once denoise is done, sharpen", ["noise", "blur"]), ("sharpen prior to denoise", ["blur", "noise"]),
        ("denoise, and once that is done sharpen", ["noise", "blur"]), ("denoise -> sharpen", ["noise", "blur"]),
        ("denoise now, sharpen later", ["noise", "blur"]), ("save sharpen for last, denoise", ["noise", "blur"]),
        ("termina con sharpen, empieza por denoise", ["noise", "blur"]),
        ("zuletzt sharpen, zuerst denoise", ["noise", "blur"]), ("最后 sharpen, denoise", ["noise", "blur"]),
        ("denoise and sharpen", None), ("denoise, it is the last picture, sharpen", None),
        ("denoise at once and sharpen", None), ("the first denoise of the year, sharpen", None),
    ],
)  # fmt: skip
def test_words_that_certainly_give_an_order_need_no_model(text, order):
    marked = {"denoise": ("noise", "undo", "full"), "sharpen": ("blur", "undo", "full")}
    wish = wish_of(text, marked)
    assert wish.ordered == (order is not None)
    assert order is None or list(wish.undo) == order


@pytest.mark.parametrize(
    ("text", "plainly"),
    [
        ("denoise w/o sharpening", "denoise without sharpening"), ("1. snow 2) fog", "first snow then fog"),
        ("denoise by 1. thanks", "denoise by #1 . thanks"), ("I can barely see her", "i cant see her"),
        ("there's hardly any light", "theres no light"), ("the left half of her face", "the left part of her face"),
        ("half of the noise", "half of the noise"), ("barely sharpen it", "barely sharpen it"),
        ("don't sharpen it until the noise is gone", "sharpen it after the noise is gone"),
        ("don't sharpen until I say so", "dont sharpen until i say so"),
        ("get the bins out of the view", "get the bins out of the picture"),
        ("it hides half the valley", "it hides part the valley"), ("remove half the rain", "remove half the rain"),
        ("a slight haze", "a haze"), ("slight noise reduction", "slight noise reduction"),
        ("a hint of mist", "a mist"), ("leave a slight grain", "leave a slight grain"),
        ("the wall should be smooth, but", "the wall isnt be smooth , but"), ("put it back", "restore it"),
        ("lighten the shadow", "remove the shadow"), ("lift the shadows", "lift the shadows"),
        ("she is just a silhouette", "she is just dark"), ("a dark outline on it", "a dark outline on it"),
        ("too dark to tell who it is", "too dark to see the it is"), ("the snow scene", "the scene"),
        ("every little drop", "every drop"), ("she moved during the exposure", "she moved during the shot"),
    ],
)  # fmt: skip
def test_turns_of_phrase_are_put_plainly(text, plainly):
    assert " ".join(token.text for token in rephrase(tokenise(normalise(text)))) == plainly


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("there's blockiness in the gradient, smooth it away", "jpeg"), ("clean the grit out of the shadows", "noise"),
        ("a curtain of rain hides it; draw that curtain away", "rain"), ("the grain and the shadows", "noise shadow"),
        ("all but the grain can be fixed", "auto -noise"), ("shadow off, grain on", "shadow -noise"),
        ("get the bins and the crane out of the picture", "oos"),
        ("get the rain out of the picture", "rain"), ("there is a slit in it", "missing"),
        ("beads on the lens, I can't make out the bumper", "raindrop"), ("specks of water on the lens", "raindrop"),
        ("the flakes look like confetti", "snow"), ("the fog needs to stay, don't remove it", "-haze"),
        ("looks like pencil strokes, but it's just the rain", "rain"),
        ("the long evening shadows are sacred", "-shadow"), ("the dial needs its shadow, don't touch it", "-shadow"),
        ("the negative was eaten by the enlarger", "missing"),
        ("saved for web at 10 %", "jpeg"), ("leave the scratches for last, first the grain", "noise > missing"),
    ],
)  # fmt: skip
def test_what_points_back_or_lies_aside_asks_for_nothing(text, plan):
    assert same(told(understand(text)[0]), plan)


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("it was a misty morning and the castle is barely visible", "haze"), ("make it visible", "lowlight"),
        ("the droplets on my lens lie over the bride's veil", "raindrop"), ("get rid of the veil", "haze"),
        ("single exposure, hot pixels all over", "noise"), ("fix the exposure and the noise", "lowlight noise"),
        ("all the dark areas are fizzing with coloured pixels", "noise"), ("it's spotty and hazy", "noise haze"),
        ("deblur this, the objective was slightly off the focal plane", "blur"), ("deblur this slightly", "blur@.5"),
        ("clear away the smog and the speckles; the shadow of the tower remains", "haze noise -shadow"),
        ("I upload a lot, clean this one up however you think best", "auto"), ("swap the chairs for white ones", "oos"),
        ("the top left corner is gone, can you restore it?", "missing"), ("keep the rain, don't remove it", "-rain"),
        ("I love the red umbrella but not the rain around it, please remove that", "rain"),
    ],
)  # fmt: skip
def test_what_may_mean_anything_or_comes_of_something_is_nothing_beside_it(text, plan):
    assert same(told(understand(text)[0]), plan)


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("the picture's dark and grainy", "the picture is dark and grainy"), ("it's so dark", "it's so dark"),
        ("the photo's dark corner", "the photo's dark corner"), ("the bird's out of focus", "the bird is out of focus"),
        ("the tower's shadow", "the tower's shadow"), ("that's too dark", "that's too dark"),
    ],
)  # fmt: skip
def test_a_verb_that_hangs_on_a_noun_stands_alone(text, apart):
    assert written_out(text) == apart


def test_what_no_list_speaks_of_does_not_count_beside_what_one_does():
    assert speaks(["dark"], "lowlight") and speaks(["brihgten"], "lowlight") and speaks(["水", "滴"], "raindrop")
    assert not speaks(["dublin"], "blur") and not speaks(["copies"], "snow") and not speaks(["the"], "rain")
    undo = {"dark": ("lowlight", "undo", "full"), "copies": ("snow", "undo", "full")}
    assert dict(wish_of("dark copies", undo).undo) == {"lowlight": 1.0}
    assert dict(wish_of("three copies", undo).undo) == {"snow": 1.0}


def test_a_weak_sign_counts_where_there_is_no_other():
    def heard(text, **chances):
        tokens = tokenise(text)
        found = tags([""] * len(tokens))
        found.kind[:] = 0
        for i, token in enumerate(tokens):
            found.kind[i, KINDS.index(chances.get(token.text, ("", 1))[0])] = chances.get(token.text, ("", 1))[1]
        return dict(read(text, text, tokens, found).undo)

    assert heard("a noise", noise=("noise", 0.4)) == {"noise": 1.0}
    assert heard("a noise in the rain", noise=("noise", 0.4), rain=("rain", 0.6)) == {"rain": 1.0}
    assert heard("a tulip", tulip=("noise", 0.6)) == {}


def settled(text, *marked):
    """Word -> (kind, act) in the end, where the text model hears `marked`."""
    tokens = tokenise(normalise(text))
    found = [dict(marked).get(t.text, ("", "undo")) for t in tokens]
    said = tags([kind for kind, _ in found], [act for _, act in found])
    settle(tokens, said)
    return {
        t.text: (KINDS[k], ACTS[a])
        for t, k, a in zip(tokens, said.kind.argmax(axis=1), said.act.argmax(axis=1), strict=True)
        if k
    }


@pytest.mark.parametrize(
    "text",
    [
        "without messing with the shadows", "but I like the shadows", "the shadows can stay",
        "remove the fog, keep the shadows",
        "leave the shadows in, please", "hands off the shadows!", "the shadows are part of the mood",
    ],
)  # fmt: skip
def test_what_stands_in_a_frame_of_keeping_is_kept(text):
    heard = settled(text, ("shadows", ("shadow", "undo")), ("messing", ("missing", "undo")), ("fog", ("haze", "undo")))
    assert heard.pop("shadows") == ("shadow", "keep")
    assert heard == ({"fog": ("haze", "undo")} if "fog" in text else {})  # the frame itself says nothing else


@pytest.mark.parametrize(
    "text",
    [
        "leave the shadows out", "I like the shadows removed", "keep the shadows away", "I can't keep the shadows",
        "no need to keep the shadows", "remove the shadows", "the shadows",
    ],
)  # fmt: skip
def test_what_only_begins_like_a_frame_of_keeping_is_left_to_the_model(text):
    for act in ("undo", "keep") if "remove the" not in text else ("undo",):
        assert settled(text, ("shadows", ("shadow", act)))["shadows"] == ("shadow", act)


def test_frames_hold_two_nouns_and_leave_the_rest():
    heard = settled("dehaze. leave the grain and the shadows alone", ("dehaze", ("haze", "undo")))
    assert heard == {"dehaze": ("haze", "undo"), "grain": ("noise", "keep"), "shadows": ("shadow", "keep")}
    heard = settled("everything but the rain", ("everything", ("auto", "undo")), ("rain", ("rain", "undo")))
    assert heard == {"everything": ("auto", "undo"), "rain": ("rain", "keep")}
    # What is plainly to go is not kept for what stands beside it.
    heard = settled("remove the fog. the rain can stay", ("fog", ("haze", "keep")), ("rain", ("rain", "keep")))
    assert heard["fog"] == ("haze", "undo") and heard["rain"] == ("rain", "keep")
    # "It's dark" and "it is dark" are one.
    assert settled("it's dark on purpose", ("dark", ("lowlight", "undo")))["dark"] == ("lowlight", "keep")


def test_several_words_of_the_lists_outweigh_a_model_in_doubt():
    tokens = tokenise("tv static")
    doubtful = tags(["snow", "noise"])
    doubtful.kind[:] = 0.5 * doubtful.kind + 0.5 / len(KINDS)
    settle(tokens, doubtful)
    assert [KINDS[k] for k in doubtful.kind.argmax(axis=1)] == ["noise", "noise"]
    certain = tags(["snow", "snow"])
    settle(tokens, certain)
    assert [KINDS[k] for k in certain.kind.argmax(axis=1)] == ["snow", "snow"]


def test_what_a_clause_names_it_does_not_also_describe():
    undo = {
        "dark": ("lowlight", "undo", "full"),
        "shadow": ("shadow", "undo", "full"),
        "grain": ("noise", "undo", "full"),
    }
    assert dict(wish_of("it is half dark from my own shadow", undo).undo) == {"shadow": 1.0}
    assert dict(wish_of("it is dark, and there is a shadow", undo).undo) == {"lowlight": 1.0, "shadow": 1.0}
    assert dict(wish_of("dark with grain", undo).undo) == {"lowlight": 1.0, "noise": 1.0}
    assert dict(wish_of("a shadow over the grain", undo).undo) == {"shadow": 1.0, "noise": 1.0}  # both are named


# Wishes to plans


def test_strengths_are_steps_in_the_order_that_works_best_and_equal_ones_go_together():
    plan = plan_wishes([Wish(undo={"blur": 0.5, "lowlight": 1.0, "noise": 0.5})])
    assert [(dict(s.mixture), s.strength) for s in plan.steps] == [
        ({"lowlight": 1.0}, 1.0),
        ({"noise": 1.0}, 0.5),
        ({"blur": 1.0}, 0.5),
    ]
    assert "works best" in plan.reason
    plan = plan_wishes([Wish(undo={"rain": 1.0, "noise": 1.0})], strength=0.5, model="m")
    assert [(s.strength, s.model) for s in plan.steps] == [(0.5, "m")] and "all at once" in plan.reason
    plan = plan_wishes([Wish(undo={"blur": 1.0, "noise": 1.0}, ordered=True)])
    assert [list(s.mixture) for s in plan.steps] == [["blur"], ["noise"]] and "order said" in plan.reason


def test_what_one_sentence_keeps_all_keep():
    plan = plan_wishes([Wish(undo={"noise": 1.0, "rain": 1.0}), Wish(keep=("noise",))])
    assert [list(s.mixture) for s in plan.steps] == [["rain"]] and plan.keep == ("noise",)


def test_general_wishes_take_what_is_found_up_to_three_and_not_what_is_kept():
    wish = Wish(auto=0.5, keep=("haze",))
    assert looks([wish])
    plan = plan_wishes([wish], Found(rain=0.9, haze=0.8, noise=0.7, jpeg=0.6, blur=0.5))
    assert set(plan.steps[0].mixture) == {"rain", "noise", "jpeg"} and plan.steps[0].strength == 0.5
    assert plan_wishes([wish], Found(haze=0.9)).steps == ()
    assert "clean" in plan_wishes([wish], Found()).reason
    plan = plan_wishes([Wish(undo={"blur": 1.0}, auto=1.0)], Found(rain=0.9, haze=0.8, noise=0.7))
    assert [set(step.mixture) for step in plan.steps] == [{"rain"}, {"blur"}, {"haze"}]  # see plan.passes


def test_general_wishes_look_again_for_what_is_not_kept():
    plan = plan_wishes([Wish(auto=0.5), Wish(keep=("haze",))], Found(noise=0.9), strength=0.5)
    assert dict(plan.again.mixture) == {"blur": 1.0} and plan.again.strength == 0.25
    assert plan_wishes([Wish(auto=0.5, keep=("haze", "blur"))], Found(noise=0.9)).again is None
    assert plan_wishes([Wish(undo={"noise": 1.0})]).again is None


def test_questions_are_answered_beside_what_is_done():
    wishes = [Wish(question=True, asked=("rain", "snow")), Wish(undo={"noise": 1.0})]
    plan = plan_wishes(wishes, Found(rain=0.9))
    assert plan.reason.startswith("rain: yes 0.90, snow: no 0.00") and list(plan.steps[0].mixture) == ["noise"]


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_lies_outside_is_turned_away_with_a_hint(kind):
    with pytest.raises(UsageError) as raised:
        check([Wish(undo={"rain": 1.0}), Wish(outside=(kind,), text="do it")])
    assert "do it" in raised.value.message and raised.value.hint
    with pytest.raises(UsageError, match="not understood"):
        check([Wish(text="xyz")])


# The model that ships


def test_it_is_the_network_that_was_trained():
    import torch

    from irtool.language.training import TaggerNet, collate, example
    from irtool.models import loading

    path = locate("irtool-words.v1")
    net, header = loading.read(path)
    assert isinstance(net, TaggerNet) and header["licence"] == "Apache-2.0"
    tagger = Tagger.load(path)
    for sentence in compose(12, 5):
        made = example(sentence)
        if made is None:
            continue
        ids, weights, offsets, mask, _ = collate([made, *([made] if len(made.rows) > 4 else [])])
        with torch.no_grad():
            wanted = net(ids, weights, offsets, mask)
        tokens = tokenise("".join(text for text, _ in sentence.pieces))
        got = tagger(tokens)
        np.testing.assert_allclose(got.kind, wanted["kind"][0].softmax(-1).numpy(), atol=1e-4)
        np.testing.assert_allclose(got.order, wanted["order"][0].softmax(-1).numpy(), atol=1e-4)


def test_a_sentence_takes_a_blink():
    model = load()
    model.wish("warm up")
    begun = time.process_time()
    for _ in range(5):
        model.wish(
            "remove the rain, it is also a bit dark, but keep the noise in the sky as it was when I took the photo"
        )
    assert (time.process_time() - begun) / 5 < 0.2


LEAST = {"English: single": 0.95, "English: rest": 0.85, "other languages": 0.85}


def test_sentences_written_by_hand_are_understood():
    found = cases(FILE)
    assert len(found) >= 300 and len({(c.split, c.text) for c in found}) == len(found)
    assert {c.language for c in found} == set(LANGUAGES)
    model = load()
    right: dict[str, list[bool]] = {name: [] for name in LEAST}
    for case in found:
        hit = same(case.plan, told(model.wish(case.text)))
        group = "other languages"
        if case.language == "en":
            group = "English: single" if case.kind == "single" else "English: rest"
        right[group].append(hit)
    rates = {name: sum(hits) / len(hits) for name, hits in right.items()}
    assert all(rates[name] >= least for name, least in LEAST.items()), rates


def test_the_table():
    class Always:
        def wish(self, text):
            return Wish(undo={"rain": 1.0}, heard=("x",), text=text)  # type: ignore[arg-type]

    shown, wrong = table(Always(), cases(FILE))
    assert "| English: single rain | " in shown and "100%" in shown and len(wrong) > 300
    assert same("rain noise", "noise rain") and not same("rain > haze", "haze > rain") and not same("rain", "rain@.5")


def test_a_file_that_is_no_text_model(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(UnavailableError):
        load(f"local:{tmp_path / 'a.safetensors'}")
    with pytest.raises(UsageError):
        load("nothing")


def test_it_can_be_trained(tmp_path):
    from irtool.language.training import join, train

    told = []
    path = train(tmp_path / "w.safetensors", sentences=256, batch=32, report=told.append)
    assert len(told) == 1 and "256 sentences" in told[0]
    with safe_open(str(path), "np") as file:
        assert file.metadata()["sentences"] == "256"
    assert isinstance(load(f"local:{path}").wish("remove the rain"), Wish)

    # Two that speak with one voice: the mean of both.
    other = train(tmp_path / "v.safetensors", sentences=256, batch=32, seed=1)
    join(tmp_path / "both.safetensors", [path, other])
    tokens = tokenise("remove the rain")
    one, two, both = (Tagger.load(tmp_path / f"{name}.safetensors")(tokens) for name in ("w", "v", "both"))
    np.testing.assert_allclose(both.kind, (one.kind + two.kind) / 2, atol=0.02)
    assert abs(one.kind - two.kind).max() > 0.05
    again = train(tmp_path / "again.safetensors", sentences=32, batch=32, rate=0.0, start=tmp_path / "both.safetensors")
    np.testing.assert_allclose(Tagger.load(again)(tokens).kind, both.kind, atol=0.02)


def test_a_text_model_is_packed_and_unpacked():
    rng = np.random.default_rng(0)
    weights = {
        "embed.weight": rng.normal(size=(50, 8)).astype(np.float32)
        * np.geomspace(1e-3, 3, 50, dtype=np.float32)[:, None],
        "conv.weight": rng.normal(size=(6, 5, 3)).astype(np.float32),
        "conv.bias": rng.normal(size=6).astype(np.float32),
    }
    weights["embed.weight"][7] = 0
    packed = pack(weights)
    assert packed["embed.weight"].nbytes == 50 * 4 and packed["conv.weight"].dtype == np.int8
    found = unpack(packed)
    assert found.keys() == weights.keys()
    for name, most in (("embed.weight", 0.12), ("conv.weight", 0.01), ("conv.bias", 1e-3)):
        rows, near = weights[name].reshape(len(weights[name]), -1), found[name].reshape(len(weights[name]), -1)
        error = np.linalg.norm(near - rows, axis=1) / (np.linalg.norm(rows, axis=1) + 1e-2)
        assert error.mean() < most, name
    assert abs(found["embed.weight"][7]).max() < 1e-3


# Sentence encoders


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory):
    """A tiny BERT of the published size with random weights, and its tokeniser: what is tested is the way."""
    transformers = pytest.importorskip("transformers")
    import torch

    folder = tmp_path_factory.mktemp("encoder")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "remove", "the", "rain", "noise"]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=384, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_sentence_is_one_vector_whatever_stands_beside_it(encoder_folder):
    import torch

    from irtool.language.encoder import SentenceEncoder

    encoder = SentenceEncoder(str(encoder_folder))
    alone = encoder(["remove the rain"])
    assert alone.shape == (1, encoder.size) == (1, 384)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(1))
    padded = encoder(["remove the rain", "remove the noise the rain the noise"])[:1]
    torch.testing.assert_close(alone, padded, rtol=1e-4, atol=1e-5)  # padding does not count
    with pytest.raises(UnavailableError, match="encoder"):
        SentenceEncoder(str(encoder_folder / "nothing"))


def published_head(path, seed=0, inputs=384):
    """A file laid out as lm_instructir-7d.pt is, with random weights."""
    import torch

    from irtool.models.instructir import LanguageHead

    torch.manual_seed(seed)
    torch.save(LanguageHead(inputs).state_dict(), path)
    return path


def test_instructirs_published_head(encoder_folder, tmp_path):
    from irtool.models.instructir import CLASSES

    head = published_head(tmp_path / "lm.pt")
    model = load(f"local:{head}@{encoder_folder}")
    embedding, logits = model.steer(["remove the rain"])
    assert embedding.shape == (1, 256) and logits.shape == (1, len(CLASSES))
    kind = CLASSES[int(logits.argmax())]
    wish = model.wish("remove the rain")
    assert wish.heard[0].kind == kind and (kind in wish.undo or kind in wish.outside or wish.auto == 1.0)
    assert model.wish(" ") == Wish(text=" ")
    with pytest.raises(UsageError, match="no words of your own"):
        model.wish("remove the moire", ["moire"])
    small = published_head(tmp_path / "small.pt", inputs=100)
    with pytest.raises(UnavailableError, match="takes 100 numbers") as caught:
        load(f"local:{small}@{encoder_folder}")
    assert "encoder:" in caught.value.hint


def test_what_the_published_weights_hear(shared, encoder_folder):
    """The real head takes what the real encoder gives; here only that its file is read as it was published."""
    import torch
    from safetensors.torch import load_file

    from irtool.language.encoder import InstructIRWords, SentenceEncoder
    from irtool.models.instructir import LanguageHead

    tensors = load_file(shared / "goldens" / "instructir_lmhead_real.safetensors")
    head = LanguageHead()
    head.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
    embedding, _ = InstructIRWords(head.eval(), SentenceEncoder(str(encoder_folder))).steer(["remove the rain"])
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))


class Bag:
    """Stands for a sentence encoder: words and their beginnings, counted."""

    name, size = "bag", 512

    def __call__(self, texts):
        import torch

        made = torch.zeros(len(texts), self.size)
        for i, text in enumerate(texts):
            for word in normalise(text).split():
                for part in (word, word[:4]):
                    made[i, zlib.crc32(part.encode()) % self.size] += 1
        return torch.nn.functional.normalize(made, dim=-1)


def test_any_sentence_encoder_by_the_nearest_sentences():
    from irtool.language.encoder import EACH, Neighbours, examples

    kinds = [kind for kind, _ in examples()]
    assert set(kinds) == {*IDS, "auto", *OUTSIDE} and kinds.count("rain") == EACH * len(LANGUAGES)
    model = Neighbours(Bag())  # type: ignore[arg-type]
    # Words alone tell all but a few apart; by chance one in seventeen would be right.
    right = [model.kind(text) == kind for kind, text in examples()]
    assert sum(right) > 0.8 * len(right)
    # Which sentences are near depends on what was drawn from the lists; that it is told as outside does not.
    text = next(text for kind, text in examples() if kind == model.kind(text) == "outscale")
    assert model.wish(text).outside == ("outscale",)


@pytest.mark.parametrize("reference", ["nothing", "encoder:", "instructir:", "encoders:x", ""])
def test_references_that_mean_nothing(reference):
    with pytest.raises(UsageError, match="no text model") as caught:
        load(reference)
    assert "encoder:NAME" in caught.value.hint


def test_a_model_file_that_is_no_text_model(models_dir):
    with pytest.raises(UnavailableError, match="holds no text model"):
        load(f"local:{models_dir / 'restorer.safetensors'}")


# Slips of typists


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("brigthen", "brighten"), ("denoyse", "denoise"), ("artifcts", "artifacts"), ("remvoe", "remove"),
        ("sonw", "snow"), ("niose", "noise"), ("noise", "noise"), ("bluriness", "blurriness"),
        ("soooo", "so"), ("daaark", "dark"), ("blurrrry", "blurry"), ("fogg", "fog"), ("shdow", "shadow"),
        # Other words, not slips: what a letter apart they mean is something else.
        ("snake", "snake"), ("stork", "stork"), ("grail", "grail"), ("brain", "brain"),
        ("lightning", "lightning"), ("streaming", "streaming"), ("trial", "trial"), ("snore", "snore"), ("x", "x"),
        ("雨", "雨"),
    ],
)  # fmt: skip
def test_plain_slips_are_put_right(wrong, right):
    (token,) = mend(tokenise(normalise(wrong)))
    assert token.text == right


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("Please take out the noise!", "noise", "noise"), ("delete the motion blur", "blur", "motion blur"),
        ("raindrops removal", "raindrop", "raindrops"), ("enlève le brouillard", "haze", "brouillard"),
        ("去掉雨", "rain", "雨"), ("It's too dark", "lowlight", "too dark"),
        ("demasiado oscura", "lowlight", "demasiado oscura"), ("暗すぎる", "lowlight", "暗すぎる"),
        ("please make it sharper", "blur", "make it sharper"),
    ],
)  # fmt: skip
def test_the_plainest_sentences_are_read_by_the_book(text, kind, named):
    said = tokenise(normalise(text))
    found, act, part = plain(said)  # type: ignore[misc]
    assert (found, act) == (kind, "undo") and [t.text for t in said[part]] == [t.text for t in tokenise(named)]
    (wish,) = understand(text)
    assert dict(wish.undo) == {kind: 1.0} and [h.words for h in wish.heard] == [named]


@pytest.mark.parametrize(
    "text",
    [
        "don't take out the noise",
        "keep the rain",
        "is there noise?",
        "rain added to it",
        "the rain man",
        "too dark?",
        "rain?",
    ],
)
def test_what_is_not_so_plain_is_left_to_the_model(text):
    assert plain(tokenise(normalise(text))) is None


@pytest.mark.parametrize(
    ("text", "kind", "act"),
    [
        ("Make it snow!", "outedit", "undo"), ("please restore it", "auto", "undo"),
        ("no edits please", "auto", "keep"), ("what does it need?", "auto", "ask"),
        ("my lens got sprayed", "raindrop", "undo"),
    ],
)  # fmt: skip
def test_whole_sentences_of_the_lists_are_read_by_the_book(text, kind, act):
    assert plain(tokenise(normalise(text)))[:2] == (kind, act)  # type: ignore[index]


def test_a_character_within_a_word_is_of_its_kind():
    tokens = tokenise(normalise("明るさ"))
    kind = tags(["lowlight", "blur", "lowlight"]).kind
    assert [KINDS[k] for k in steady(tokens, kind).argmax(axis=1)] == ["lowlight"] * 3
    assert [KINDS[k] for k in kind.argmax(axis=1)] == ["lowlight", "blur", "lowlight"]


# Words of one's own

OWN = {"moire": Own("moire.safetensors", "jpeg"), "stamp": Own("stamp.safetensors", "missing")}


@pytest.mark.parametrize(
    ("text", "undo", "keep"),
    [
        ("remove the moire", {"moire": 1.0}, ()),
        ("remove the moire, but keep the grain", {"moire": 1.0}, ("noise",)),
        ("take out half of the moire", {"moire": 0.5}, ()),
        ("first denoise, then get rid of the moire", {"noise": 1.0, "moire": 1.0}, ()),
        ("remove the moire and the stamps", {"moire": 1.0, "stamp": 1.0}, ()),
        ("don't touch the stamp, remove the rain", {"rain": 1.0}, ("stamp",)),
        ("quita el moire", {"moire": 1.0}, ()),
        ("entferne das Moire", {"moire": 1.0}, ()),
        ("去掉moire", {"moire": 1.0}, ()),
        ("remove the rain", {"rain": 1.0}, ()),
    ],
)
def test_words_of_ones_own_are_understood_like_any(text, undo, keep):
    (wish,) = understand(text, own=[*OWN])
    assert (list(wish.undo.items()), wish.keep, wish.outside) == (list(undo.items()), keep, ())


def test_an_own_word_is_heard_as_it_was_said():
    (wish,) = understand("remove the moire", own=["moire"])
    assert [(h.words, h.kind) for h in wish.heard] == [("moire", "moire")]


def test_what_was_heard_is_told_as_it_was_said():
    (wish,) = understand("Upscale 4x!")
    assert wish.outside == ("outscale",) and " ".join(h.words for h in wish.heard).startswith("upscale 4x")
    (wish,) = understand("remvoe the 雨")
    assert [(h.words, h.kind) for h in wish.heard] == [("雨", "rain")]
    with pytest.raises(UsageError, match="no detector"):
        check(understand("is there any moire?", own=["moire"]))
    crowd = ["moire", "stamp", "dust", "glue", "mould", "tape"]
    with pytest.raises(UsageError, match="too much"):
        understand("remove " + ", ".join(crowd), own=crowd)


def test_own_tasks_are_steps_of_their_own():
    plan = plan_wishes([Wish(undo={"moire": 0.5, "rain": 1.0, "stamp": 1.0})], strength=0.5, model="m", own=OWN)
    assert [(dict(s.mixture), s.strength, s.offsets) for s in plan.steps] == [
        ({"missing": 1.0}, 0.5, "stamp.safetensors"),
        ({"jpeg": 1.0}, 0.25, "moire.safetensors"),
        ({"rain": 1.0}, 0.5, ""),
    ]
    plan = plan_wishes([Wish(undo={"rain": 1.0, "moire": 1.0}, ordered=True)], own=OWN)
    assert [s.offsets for s in plan.steps] == ["", "moire.safetensors"]
    plan = plan_wishes([Wish(undo={"moire": 1.0}), Wish(keep=("moire",))], own=OWN)
    assert plan.steps == () and plan.keep == ()
