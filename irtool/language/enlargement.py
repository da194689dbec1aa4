"""Requests to enlarge, "make it twice as large": a rule, since the factor is a number and not a label.

A clause with a word of size and a factor asks for it; one with a word of enlargement and no figure asks for twice. A
clause that also names a degradation, denies, asks for a size in pixels ("to 4k") or for a part ("zoom in on the face")
is left to the text model.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from ..errors import UsageError
from ..plan import SCALES
from .tokens import normalize, tokenize
from .vocabulary import vocabulary

_BREAK = re.compile(
    r"[,;.!?:、。，；！？]+(?!\d)"
    r"|\b(?:and|then|but|also|while|afterwards|after that|y|e|luego|despues|pero|ademas|und|dann|danach|aber"
    r"|anschliessend|et|puis|ensuite|mais)\b"
    r"|(?:然后|并且|同时|接着|再|并|和|してから|それから)"
    r"|て(?=[2-9二三四五六七八九两]\s*倍)"
)
_NUMBERS = {2: "2|two|zwei|dos|deux|二|两", 3: "3|three|drei|tres|trois|三", 4: "4|four|vier|cuatro|quatre|四"}
_WORDS = {
    2: "twice|doubled?|doubling|doppelte?[nr]?|verdoppel[nt]|verdopple|zweifach(?:e[ns]?)?|zweimal|doble"
    "|duplica(?:r|la|lo)?|double[rz]|加倍|翻倍|[扩放]大一倍|大一倍|(?<![0-9一二三四五六七八九十])倍[にの]",
    3: "thrice|tripled?|treble|dreifach(?:e[ns]?)?|dreimal|verdreifache|triple[rz]|triplica(?:r|la|lo)?",
    4: "quadrupled?|vierfach(?:e[ns]?)?|viermal|vervierfache|quadruple[rz]|cuadruplica(?:r|la|lo)?|cuadruple",
}
_FIGURES = "|".join(_NUMBERS.values()) + r"|\d+"
_FACTOR = re.compile(
    rf"(?<![a-z0-9.])(?P<times>{_FIGURES})\s*-?\s*(?:x(?![a-z])|times|fold|mal|fach(?:e[ns]?)?|veces|fois|倍)"
    r"|(?<![a-z0-9])x\s?(?P<after>\d+)(?![\d.])"
    rf"|\b(?:by|factor(?: of| de)?|faktor|por|par|facteur)\s+(?P<by>{_FIGURES})(?![\w.%])"
    r"|(?P<percent>[234])00\s?(?:%|percent|prozent|por ?ciento|pour ?cent)"
    r"|" + "|".join(rf"(?<![a-z])(?P<w{n}>{words})(?![a-z])" for n, words in _WORDS.items())
)
_PICTURE = (
    r"(?:(?:make|get|want|need|mach|mache|haz|have) )?(?:it|this|that|them|everything|es|sie|ihn"
    r"|(?:the |my |this |these |whole |entire |das |die |la |el |esta |ma |cette )*"
    r"(?:images?|pictures?|photos?|photographs?|pics?|scans?|shots?|files?|bild|foto|imagen|imagenes))"
)
_VERBS = (
    r"upscal\w*|upsampl\w*|enlarg\w*|magnif\w*|scal(?:e|ed|ing)|super-?\s?res\w*|blow|sizes?|resolutions?|dimensions?"
    r"|tamano|ampli\w+|agrand\w+|escala\w+|resolucion|dimensiones"
    r"|vergrosser\w*|\w*skalier\w*|auflosung|abmessungen|grosse|taille|agrandi\w*"
)
_SIZE = re.compile(
    rf"\b(?:{_VERBS})\b|放大|扩大|尺寸|分辨率|拡大|サイズ|解像度|アップスケール|引き伸ば|倍の大きさ|倍大"
    rf"|\b{_PICTURE}(?: \w+){{0,4}} (?:large|larger|big|bigger|size|pixels|gross|grosser|grande|grandes)\b"
    r"|\b(?:haz(?:la|lo)|rends[- ](?:la|le)|fais[- ](?:la|le)|mets[- ]la)(?: \w+){0,4} grande?\b"
)
_ENLARGE = re.compile(
    rf"\b{_PICTURE} (?:\w+ )?(?:larger|bigger|grosser|mas grande)\b|^\s*(?:larger|bigger|grosser)\b"
    r"|\b(?:upscal(?:e|ing)|upsample|enlarge|enlargement|magnify|scale (?:it |this |them |the \w+ )?up|superres"
    r"|super-?\s?resol\w+|(?:increase|raise|boost) (?:the |its )?(?:image |picture )?(?:size|resolution)"
    r"|(?:higher|more) resolution|ampliar|ampliala|amplialo|amplia|agranda\w*|hazla mas grande|superresolucion"
    r"|aumenta\w* (?:el tamano|la resolucion)|vergrosser[en]*|hochskalier\w*|superauflosung|erhohe die auflosung"
    r"|agrandi[srt]\w*|agrandissement|rends[- ]la plus grande|augmente\w* (?:la taille|la resolution))\b"
    r"|放大|变大|超分|提高分辨率|拡大|解像度を上げ|超解像|アップスケール|引き伸ば"
    r"|^(?:もっと)?大きくし|(?:画像|写真|これ)を(?:もっと)?大きくし"
)
_NOT_WHOLE = re.compile(
    r"\d\s?k\b|\d{3,}(?!\s?(?:%|percent|prozent))|\d\s?px"
    r"|\b(?:u?hd|[dp]pi|a[0-4]|mp|megapixels?|poster|wallpaper|zoom\w*|crop\w*|half|smaller|shrink|reduce|halb\w*|kleiner"
    r"|mitad|moitie|petite?|pequen\w*|too|demasiado|zu|trop"
    r"|faces?|eyes?|head|nose|lips|mouth|hands?|teeth|breasts?|muscles|text|letters?|logo|moon|sun|sky|background"
    r"|gesicht|augen|kopf|nase|mond|cara|ojos|cabeza|nariz|luna|visage|yeux|tete|nez|lune)\b"
    r"|[脸臉顔目眼鼻口头頭胸月字]|小|缩|縮|半|ズーム|太|すぎ"
)
_DENIED = re.compile(
    r"\b(?:not|no|dont|never|without|nicht|kein\w*|ohne|sin|nunca|ne|pas|sans|is|was|looks?|why)\b|n't|不|没|别|ない"
)


@dataclass(frozen=True)
class Enlargement:
    """A request to enlarge.

    Attributes:
        scale: how many times, one of `plan.SCALES`.
        words: the clause that asks for it, normalized.
        rest: the sentence without that clause, normalized; may be empty.
    """

    scale: int
    words: str
    rest: str


def find(text: str) -> Enlargement | None:
    """The request to enlarge in a sentence; None where there is none that the rule is sure of.

    Raises:
        UsageError: a factor was named that irtool has no network for.
    """
    sentence = normalize(text)
    breaks = [(0, 0), *(m.span() for m in _BREAK.finditer(sentence)), (len(sentence), len(sentence))]
    for (_, start), (end, _) in itertools.pairwise(breaks):
        clause = sentence[start:end].strip()
        scale = _scale(clause)
        if scale is None:
            continue
        if scale not in SCALES:
            raise UsageError(f"'{clause}': irtool enlarges 2, 3 or 4 times.", 'Say "make it twice as large".')
        before = re.sub(rf"(?:(?:{_BREAK.pattern})\s*)+$", "", sentence[:start]).strip()
        after = re.sub(rf"^(?:\s*(?:{_BREAK.pattern}))+", "", sentence[end:]).strip()
        return Enlargement(scale, clause, ", ".join(filter(None, (before, after))))
    return None


def _scale(clause: str) -> int | None:
    """The factor by which a clause asks to enlarge; None where it does not."""
    if not _SIZE.search(clause) and not _ENLARGE.search(clause):
        return None
    if _NOT_WHOLE.search(clause) or _DENIED.search(clause):
        return None
    words = [token.text for token in tokenize(clause)]
    if any(_plain(words, kind) for kind in vocabulary().phrases):
        return None
    if found := _FACTOR.search(clause):
        return _number(found)
    return 2 if _ENLARGE.search(clause) and not re.search(r"\d", clause) else None


def _plain(words: list[str], kind: str) -> bool:
    return vocabulary().plainness(words, 0, len(words), kind) == 3


def _number(found: re.Match[str]) -> int:
    for n in _WORDS:
        if found[f"w{n}"]:
            return n
    figure = found["times"] or found["after"] or found["by"] or found["percent"]
    for n, words in _NUMBERS.items():
        if figure in words.split("|"):
            return n
    return int(figure)
