"""The vocabulary of degradations: ids, task verbs, names, prompts and synonyms.

Every other room takes its words from here. The order of `DEGRADATIONS` is the published DA-CLIP
order, and is the order of every vector indexed by degradation (detector logits, task weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .errors import UsageError, closest

CLEAN = "clean"


@dataclass(frozen=True)
class Degradation:
    """One kind of damage.

    Attributes:
        id: short machine name, used in JSON, file names and degradation strings.
        task: the verb that undoes it, used by ``--task``.
        name: what a person calls it.
        prompt: the published DA-CLIP degradation word.
        synonyms: further words accepted for it on the command line.
    """

    id: str
    task: str
    name: str
    prompt: str
    synonyms: tuple[str, ...] = ()


DEGRADATIONS: tuple[Degradation, ...] = (
    Degradation("blur", "deblur", "motion blur", "motion-blurry", ("motion", "shaky", "deblurring")),
    Degradation("haze", "dehaze", "haze", "hazy", ("fog", "mist", "smog", "dehazing")),
    Degradation(
        "jpeg",
        "dejpeg",
        "JPEG artefacts",
        "jpeg-compressed",
        ("compression", "blocking", "blocky", "artefacts", "artifacts"),
    ),
    Degradation(
        "lowlight", "brighten", "low light", "low-light", ("dark", "low-light", "exposure", "relight", "enlighten")
    ),
    Degradation("noise", "denoise", "noise", "noisy", ("grain", "grainy", "denoising")),
    Degradation("raindrop", "deraindrop", "raindrops", "raindrop", ("drops", "raindrops")),
    Degradation("rain", "derain", "rain", "rainy", ("streaks", "deraining")),
    Degradation("shadow", "deshadow", "shadow", "shadowed", ("shadows", "unshadow")),
    Degradation("snow", "desnow", "snow", "snowy", ("snowflakes", "desnowing")),
    Degradation("missing", "inpaint", "missing regions", "uncompleted", ("holes", "mask", "inpainting", "hole")),
)
REPAIRS: tuple[Degradation, ...] = (
    Degradation("scratches", "descratch", "scratches", "scratched", ("scratch", "dust", "creases", "cracks")),
    Degradation("fade", "unfade", "fading", "faded", ("yellowing", "yellowed")),
)
"""What age does to prints: asked for by name, and done before all else (`irtool.repairs`). The detector and the vectors
indexed by degradation know the ten above alone."""
IDS: tuple[str, ...] = tuple(d.id for d in DEGRADATIONS)
TASK_IDS: tuple[str, ...] = (*IDS, *(d.id for d in REPAIRS))
"""All that can be asked for by name."""
INDEX: dict[str, int] = {d.id: i for i, d in enumerate(DEGRADATIONS)}

# The order in which present degradations are undone when they are taken one after the other. Holes first: they spoil
# whatever looks around them. Then the light: in the dark neither rain nor snow nor haze is seen for what it is. Rain
# before haze, since the veil of rain reads as haze; JPEG before blur, since deblurring sharpens block edges.
# Measured: docs/lab/experiments.md, "At once or one after the other".
RESTORE_ORDER: tuple[str, ...] = (
    "missing",
    "lowlight",
    "jpeg",
    "noise",
    "snow",
    "rain",
    "shadow",
    "blur",
    "raindrop",
    "haze",
)


@cache
def _words(known: tuple[Degradation, ...]) -> dict[str, Degradation]:
    words: dict[str, Degradation] = {}
    for d in known:
        for word in (d.id, d.task, d.name, d.prompt, *d.synonyms):
            words.setdefault(word.lower(), d)
    return words


def lookup(word: str) -> Degradation:
    """Return the degradation that `word` (id, task verb, name, prompt or synonym) stands for.

    Raises:
        UsageError: nothing is called that; the hint names the closest match.
    """
    words = _words(DEGRADATIONS)
    found = words.get(word.strip().lower())
    if found is not None:
        return found
    tasks = ", ".join(d.task for d in (*DEGRADATIONS, *REPAIRS))
    hint = closest(word.strip(), _words((*DEGRADATIONS, *REPAIRS)), f"Known: {tasks}.")
    raise UsageError(f"Unknown degradation or task '{word}'.", hint)


def lookup_repair(word: str) -> Degradation | None:
    """The one of `REPAIRS` that `word` stands for, as of `lookup`; None where it stands for none."""
    return _words(REPAIRS).get(word.strip().lower())


def lookup_task(word: str) -> Degradation:
    """Find what `word` names among `REPAIRS` and `DEGRADATIONS`; raises as `lookup`."""
    return lookup_repair(word) or lookup(word)
