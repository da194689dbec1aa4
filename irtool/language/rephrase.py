"""Turns of phrase that say something else than their words do, put in words that mean what they say.

"w/o" is "without"; "don't brighten it until the noise is gone" asks for both, in an order; "I can barely see her" and
"the left half of her face" have words of strengths in them, but tell how little is seen and where it is.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .index import index
from .tokens import Token

_SEEN = (
    "see|make|tell|recognise|recognize|read|discern|distinguish|visible|readable|legible|recognisable|recognizable|"
    "there|any|anything|anyone|anybody|lit|light|identify|perceive|spot|"
    "discernible|distinguishable|perceptible|identifiable|decipherable"
)
_BLACK = "nothing|no|none|black|pitch|dark|invisible|unreadable|illegible|gone|everything"
_DONE = "is|are|has|have|s|gone|done|finished|removed|cleared"
_HIDES = (
    "(?:hid|block|cover|obscur|mask|conceal|veil|swallow|eat|blot|bury|spoil|ruin)(?:e|es|s|ed|ing)?|hidden|ate|over|"
    "across|buries|loses?|lost|on|behind"
)
_DAMAGE = (
    r"(?:camera |motion |lens |image |film |sensor |morning |jpeg |compression |cast |falling )*"
    r"(?:haze|mist|fog|smog|smoke|"
    r"blur|blurriness|shake|softness|movement|unsharpness|grain|noise|speckle|rain|drizzle|snow|snowfall|flurry|shadow|"
    r"shadows|shade|scratch|scratches|crease|creases|tear|blocking|blockiness|artefacts|artifacts|compression|ringing|"
    r"banding|gloom|underexposure)\b(?! (?:removal|reduction|lift|correction|filter|compensation|suppression))"
)
_AS = "is|are|was|were|s|became|look like|looks like|just|only"
_DONE_WITH = " [,.;!]| and| against|$"
_WHOSE = "the|that|this|my|our|his|her|their|your|any"
_TURNS: tuple[tuple[str, dict[int, str]], ...] = (
    (r"w / o(?= [a-z])", {0: "without", 1: "", 2: ""}),
    (r"not until", {0: "only", 1: "after"}),
    (rf"(?:dont|never)(?= [a-z]+ .*\buntil\b [a-z ]*\b(?:{_DONE})\b)", {0: ""}),
    (rf"until(?= [a-z ]*\b(?:{_DONE})\b)", {0: "after"}),
    (rf"can (?:barely|hardly|scarcely|only just)(?= (?:{_SEEN})\b)", {0: "cant", 1: ""}),
    (r"(?:barely|hardly|scarcely) any", {0: "no", 1: ""}),
    (rf"(?:barely|hardly|scarcely)(?= (?:{_SEEN})\b)", {0: "poorly"}),
    (r"out of the view", {3: "picture"}),
    (rf"(?:almost|nearly|practically|virtually)(?= (?:{_BLACK})\b)", {0: "quite"}),
    (r"(?:left|right|upper|lower|top|bottom|other|one|dark|bright|lit|sunny|shaded|first|second) half", {1: "part"}),
    (rf"(?:{_HIDES}) half(?= (?:of )?(?:the|a|an|my|our|his|her|their|its|this|that)\b)", {1: "part"}),
    (
        r"(?:is|are|was|were) (?:just|only|barely|merely|but) (?:a|the) (?:hint|trace|ghost|touch|suggestion)",
        {3: "blob"},
    ),
    (r"(?:each|every|those|these|all|many|countless|and|like) little(?= [a-z])(?! bit)", {1: ""}),
    (r"kept(?= [a-z]+ing\b)", {0: "was"}),
    (rf"(?<!leave )(?<!leave a )(?<!keep )(?<!keep a )(?:slight|mild|minor)(?= {_DAMAGE})", {0: ""}),
    (rf"^a (?:hint|touch|trace|whiff|tinge) of(?= {_DAMAGE})", {1: "", 2: ""}),
    (rf"(?:theres|has|had|got) a (?:hint|touch|trace|whiff|tinge) of(?= {_DAMAGE})", {2: "", 3: ""}),
    (r"(?:during|by|in|through) (?:the|a|an|my|this|that) exposure", {2: "shot"}),
    (r"(?:during|by|in|through) (?:the|a|an|my|this|that) (?:whole|entire|long|slow) exposure", {3: "shot"}),
    (r"^drop(?= (?:the|that|this|those|these|it)\b)", {0: "remove"}),
    (r"(?:,|;|\.|and|please|just) drop(?= (?:the|that|this|those|these|it)\b)", {1: "remove"}),
    (r"wipe out", {0: "remove", 1: ""}),
    (r"half(?= (?:of )?(?:his|her|my|our|their|your) (?:face|body|head|hair|hand|desk|page|sheet))", {0: "part"}),
    (r"(?:his|her|my|our|their|your|s) hair\b", {1: "head"}),
    (r"(?:it|that|which|now|stuff|fluff|and) dots(?= (?:the|our|my|his|her|their|this)\b)", {1: "covers"}),
    (r"[a-z]+s (?:speckle|dot|pepper|sprinkle|mottle|freckle)(?= (?:the|our|my|his|her|their|this)\b)", {1: "cover"}),
    (r"(?:[a-z]+s|that|which) blur(?= (?:the|our|my|his|her|their)\b)", {1: "hide"}),
    (r"(?:hides?|blocks?|spoils?|obscures?|covers?|distorts?|ruins?) the view", {2: "picture"}),
    (
        r"(?:ought to|should have|is supposed|was supposed)(?= (?:be|been|to be|look|to look) [a-z]+ ,? ?but\b)",
        {0: "isnt", 1: ""},
    ),
    (r"should(?= (?:be|look) [a-z]+ ,? ?but\b)", {0: "isnt"}),
    (rf"(?:lighten|brighten|lift)(?= (?:{_WHOSE}) (?:[a-z]+s )?shadow\b)", {0: "remove"}),
    (rf"lift(?= (?:{_WHOSE}) shadows (?:from|off)\b)", {0: "remove"}),
    (rf"(?:{_AS}) an? (?:silhouette|outline)(?={_DONE_WITH})", {-2: "", -1: "dark"}),
    (rf"(?:{_AS}) an? (?:black|dark) (?:silhouette|outline)(?={_DONE_WITH})", {-3: "", -1: ""}),
    (r"snow(?= (?:scene|landscape|field|sculpture|castle|goose|leopard|bunting|lodge|hut)s?\b)", {0: ""}),
    (r"(?:cant|couldnt|cannot|poorly) (?:tell|say|see) (?:whether|if|what|who|which|how)", {-2: "see", -1: "the"}),
    (r"too [a-z]+ to (?:tell|say|see) (?:whether|if|what|who|which)", {-2: "see", -1: "the"}),
    (r"(?:add|put) (?:it|them|that|those) back", {0: "restore", 2: ""}),
    (r"freeze - frame", {0: "still", 1: "", 2: ""}),
)
"""What is met, in tokens with spaces between, and what some of them become, counted from either end; nothing takes them
away."""
TURNS = tuple((re.compile(rf"(?<!\S){met}(?!\S)"), instead) for met, instead in _TURNS)


_ADVERBS = (
    "too|so|very|really|quite|rather|pretty|far|way|a|an|the|no|not|only|barely|hardly|nearly|almost|completely|"
    "totally|badly|slightly|terribly|awfully|full of|covered|got|been|just|still|all|in|on|under|behind|out of|off|"
    "like|lost|gone|hidden"
)
_AHEAD = "and|but|or|because|from|in|at|on|with|as|so|after|all"
_APPENDED = re.compile(rf"\b([a-z]{{3,}})'s (?=(?:{_ADVERBS})\b|([a-z]+)(?: ?(?:[,.;!?]|$)| (?:{_AHEAD})\b))")
_LEARNED = frozenset(("that", "there", "what", "here", "where", "who", "how", "she", "let"))
"""Words that the text model knows with their verb."""


def written_out(said: str) -> str:
    """A normalised sentence in which the verb that hangs on a noun stands alone: "the picture's dark and grainy"."""

    def apart(match: re.Match[str]) -> str:
        noun, how = match.groups()
        slots = index().entries.get(how, {}) if how else {"a": ""}
        return match[0] if noun in _LEARNED or "a" not in slots or "n" in slots else f"{noun} is "

    return _APPENDED.sub(apart, said)


LISTED = re.compile(r"(?<!\S)#1 [.):] .*(?<!\S)#10 [.):] ")
"""A list that counts: "1. the snow 2. the haze"."""


def rephrase(tokens: list[Token]) -> list[Token]:
    """The tokens with such turns put plainly."""
    found = list(tokens)
    if LISTED.search(" ".join(token.text for token in found)):
        found = [
            replace(t, text="first" if t.text == "#1" else "then", share=None) if _numbers(found, i) else t
            for i, t in enumerate(found)
            if not (i and _numbers(found, i - 1))
        ]
    for met, instead in TURNS:
        said = " ".join(token.text for token in found)
        gone: set[int] = set()
        for match in met.finditer(said):
            first = said.count(" ", 0, match.start())
            length = match[0].count(" ") + 1
            for place, text in instead.items():
                at = place % length
                found[first + at] = replace(found[first + at], text=text, share=None)
                gone |= {first + at} if not text else set()
        found = [token for i, token in enumerate(found) if i not in gone]
    return found


def _numbers(tokens: list[Token], i: int) -> bool:
    """Whether a token is the number of something in a list."""
    return tokens[i].text in ("#1", "#10") and i + 1 < len(tokens) and tokens[i + 1].text in (".", ")", ":")
