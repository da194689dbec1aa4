"""From a sentence to tokens, and from tokens to hashed features.

A word has itself and its runs of three to five letters as features, so that a misspelt word shares most of them with
the right one. In Chinese and Japanese every character is a token, with its neighbors as features.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass, replace

BUCKETS = 1 << 16
MOST_TOKENS = 160

_CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
_PERCENT = r"(?:%|per\s?cent|percent|prozent|por\s?ciento|por\s?cien|pour\s?cent|パーセント|割|成)"
_TOKEN = re.compile(
    rf"(?P<percent>\d+(?:[.,]\d+)?)\s*(?P<sign>{_PERCENT})"
    r"|(?P<number>\d+(?:[.,]\d+)?)"
    rf"|(?P<cjk>[{_CJK}])"
    rf"|(?P<word>(?:(?![{_CJK}])[^\W\d_])+'?)"
    r"|(?P<mark>[^\w\s])"
)
_TENS = (
    "ten zehn diez dix", "twenty zwanzig veinte vingt", "thirty dreißig treinta trente",
    "forty fourty vierzig cuarenta quarante", "fifty fünfzig cincuenta cinquante", "sixty sechzig sesenta soixante",
    "seventy siebzig setenta", "eighty achtzig ochenta", "ninety neunzig noventa", "hundred hundert cien cent",
)  # fmt: skip
_IN_WORDS = {word: str(10 * tens) for tens, words in enumerate(_TENS, 1) for word in words.split()}
_WORDS_PERCENT = re.compile(rf"\b({'|'.join(_IN_WORDS)})(?=\s*{_PERCENT})")
_THIRDS = re.compile(
    r"\b(?:(?P<two>two|2|zwei|dos|deux)|an?|one|1|ein|einen|un)[ -](?:thirds?|drittel|tercios?|tiers)\b"
    r"|(?P<of>三分之|3分の|三分の)(?P<count>[一二12])"
)
_CHINESE = {c: i for i, c in enumerate("零一二三四五六七八九十")} | {"两": 2, "半": 5}
_CHINESE_TENTHS = re.compile(r"([一二三四五六七八九两])\s*(?=[成割])")
_CHINESE_PERCENT = re.compile(r"百分之([一二三四五六七八九]?十[一二三四五六七八九]?|百|[一二三四五六七八九]|\d+)")


_SETTINGS = frozenset(("iso", "asa", "qf", "q", "quality", "factor", "f", "sigma", "gain"))
"""Words before numbers that are no shares."""
_SAVED = ("saved", "resaved", "exported", "gespeichert", "guardada", "guardado", "enregistree")
"""Words about how a file was written, before percentages that are no shares."""
_BETWEEN = (
    "=", ":", "/", "-", "of", "at", "to", "roughly", "about", "around", "approximately", "setting", "slider", "level",
    "was", "is", "set", "only", "just",
)  # fmt: skip
_UNITS = frozenset((
    "s", "sec", "secs", "second", "seconds", "ms", "stop", "stops", "ev", "il", "blenden", "段", "档", "mm", "cm", "m",
    "km", "k", "kb", "kib", "kilobyte", "kilobytes", "megabyte", "megabytes", "mb", "gb", "px", "pixel", "pixels", "mp",
    "megapixels", "dpi", "bit", "bits", "db", "x", "times", "years", "am", "pm", "h",
))  # fmt: skip
"""Units behind numbers that are no shares."""


@dataclass(frozen=True)
class Token:
    """A word, a character, a number or a mark.

    Attributes:
        text: as normalized.
        start: where it begins in the normalized sentence.
        share: the share in [0, 1] that a number or percentage may stand for; else None.
        percent: it was written with a percent sign or word.
    """

    text: str
    start: int
    share: float | None = None
    percent: bool = False


def normalize(text: str) -> str:
    """A sentence in lower case, in compatible forms (NFKC), without accents on Latin letters, with shares in digits."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.translate({0x2019: "'", 0x2018: "'", 0x60: "'", 0xB4: "'"})
    text = _WORDS_PERCENT.sub(lambda m: _IN_WORDS[m[1]], text)
    text = _THIRDS.sub(lambda m: "67%" if m["two"] or m["count"] in ("二", "2") else "33%", text)
    text = _CHINESE_PERCENT.sub(lambda m: f"{_chinese(m[1])}%", text)
    text = _CHINESE_TENTHS.sub(lambda m: str(_CHINESE[m[1]]), text)
    return text.translate(_ACCENTS)


def _bare(c: str) -> str:
    return "".join(p for p in unicodedata.normalize("NFKD", c) if not unicodedata.combining(p))


_ACCENTS = {code: _bare(chr(code)) for code in range(0xC0, 0x250)}


def _chinese(number: str) -> int:
    if number.isdecimal():
        return int(number)
    if number == "百":
        return 100
    tens, ten, ones = number.partition("十")
    if not ten:
        return _CHINESE[tens]
    return 10 * (_CHINESE[tens] if tens else 1) + (_CHINESE[ones] if ones else 0)


def tokenize(text: str) -> list[Token]:
    """Tokens of a normalized sentence, at most `MOST_TOKENS`."""
    found = []
    for match in _TOKEN.finditer(text):
        start = match.start()
        if match["percent"]:
            value = float(match["percent"].replace(",", ".")) * (10 if match["sign"] in "割成" else 1) / 100
            found.append(Token("#%", start, value if value <= 1 else None, True))
        elif match["number"]:
            value = float(match["number"].replace(",", "."))
            share = value if value <= 1 else value / 100 if value <= 100 else None
            found.append(Token("#1" if value <= 1 else "#10" if value < 10 else "#100", start, share))
        elif match["word"]:
            # l'image -> l' image; don't -> dont, which many write anyway.
            word = match["word"]
            joined = found[-1] if found and found[-1].text.endswith("'") else None
            if joined is not None and joined.start + len(joined.text) == start and len(joined.text) > 3:
                found[-1] = Token(joined.text[:-1] + word, joined.start)
            else:
                found.append(Token(word, start))
        else:
            found.append(Token(match[0], start))
    shorn = [replace(t, text=t.text.rstrip("'") or t.text) if t.text[0] != "'" else t for t in found[:MOST_TOKENS]]
    return [replace(t, share=None) if t.share is not None and _measures(shorn, i) else t for i, t in enumerate(shorn)]


def _measures(tokens: list[Token], i: int) -> bool:
    """Whether a number is one of a camera or a file ("ISO 100", "QF=8", "1/8 s", "two stops"), and so no share."""
    if tokens[i].percent:  # "saved for web at 10 %"
        return any(t.text in _SAVED for t in tokens[max(0, i - 5) : i])
    before = [t.text for t in tokens[max(0, i - 3) : i] if t.text not in _BETWEEN]
    after = [t.text for t in tokens[i + 1 : i + 5]]
    if after[:1] == ["/"] and after[1:2]:
        after = after[2:]
    return bool(before and before[-1] in _SETTINGS) or bool(after and after[0] in _UNITS)


def is_wide(text: str) -> bool:
    """Whether a token is a character of Chinese or Japanese script."""
    return len(text) == 1 and re.match(f"[{_CJK}]", text) is not None


_OTHER_LETTER = re.compile(rf"(?![a-z\u00aa-\u024f\u1e00-\u1eff{_CJK}])[^\W\d_]")


def unclaimed_script(text: str) -> bool:
    """Whether at least half of the letters of a normalized text are of a script of none of the six languages."""
    others = len(_OTHER_LETTER.findall(text))
    return others > 0 and 2 * others >= sum(map(str.isalpha, text))


def features(tokens: list[Token]) -> list[list[int]]:
    """For every token the buckets (0 to BUCKETS - 1) of its features: first the whole token, then its parts."""
    texts = [t.text for t in tokens]
    wide = [is_wide(t) for t in texts]
    rows = []
    for i, text in enumerate(texts):
        if wide[i]:
            before = texts[i - 1] if i and wide[i - 1] else "^"
            after = texts[i + 1] if i + 1 < len(texts) and wide[i + 1] else "$"
            further = texts[i + 2] if i + 2 < len(texts) and wide[i + 1] and wide[i + 2] else "$"
            grams = [text, before + text, text + after, before + text + after, text + after + further]
        elif text[0] == "#" or not text[0].isalpha():
            grams = [text]
        else:
            framed = f"^{text}$"
            grams = [f"={text}"] + [framed[j : j + n] for n in (3, 4, 5) for j in range(len(framed) - n + 1)]
        rows.append([zlib.crc32(g.encode()) % BUCKETS for g in grams])
    return rows
