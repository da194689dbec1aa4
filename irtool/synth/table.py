"""All degradations with their parameters, as the command line lists them and the parser checks them."""

from __future__ import annotations

from .blur import blur
from .fade import fade
from .haze import haze
from .jpeg import jpeg
from .lowlight import lowlight
from .missing import missing
from .noise import noise
from .rain import rain
from .raindrop import raindrop
from .real import real
from .scratches import scratches
from .shadow import shadow
from .snow import snow
from .spec import Parameter, Spec

_SPECS = (
    Spec(
        "blur",
        "motion blur along a random trajectory, in linear light",
        "Boracchi and Foi 2012; GoPro (Nah et al. 2017)",
        (
            Parameter("length", 17, 1, 255, "extent of the trajectory, pixels"),
            Parameter("shake", 0.4, 0, 1, "0 a straight sweep, 1 a nervous hand"),
            Parameter("vary", 0.0, 0, 1, "how much the blur changes across the picture"),
        ),
        blur,
    ),
    Spec(
        "haze",
        "I = J t + A (1 - t) with t = exp(-beta d) over a depth-like field",
        "Koschmieder's model; RESIDE (Li et al. 2019)",
        (
            Parameter("beta", 1.5, 0, 6, "optical depth of the farthest point"),
            Parameter("airlight", 0.9, 0, 1, "brightness of the haze"),
            Parameter("tint", 0.03, 0, 0.3, "largest colour offset of the haze, per channel"),
        ),
        haze,
    ),
    Spec(
        "jpeg",
        "JPEG through the real codec",
        "libjpeg through Pillow",
        (
            Parameter("q", 10, 1, 100, "quality", whole=True),
            Parameter("subsampling", "420", meaning="chroma resolution", choices=("420", "422", "444")),
        ),
        jpeg,
    ),
    Spec(
        "lowlight",
        "less exposure in linear light, shot and read noise, tone curve",
        "LOL (Wei et al. 2018)",
        (
            Parameter("ev", 5, 0, 12, "exposure taken away, stops"),
            Parameter("gamma", 1.5, 0.5, 3, "tone curve before it, above 1 pulls the shadows down"),
            Parameter("noise", 1, 0, 30, "standard deviation at the scene's mid grey, 8-bit levels"),
            Parameter("tint", 0.05, 0, 0.5, "largest white-balance error, share of each channel"),
        ),
        lowlight,
    ),
    Spec(
        "noise",
        "noise of given standard deviation",
        "additive white Gaussian protocol; Poisson; camera: shot and read noise after demosaicing",
        (
            Parameter("sigma", 25, 0, 200, "standard deviation, 8-bit levels (poisson, camera: at mid grey)"),
            Parameter("kind", "gaussian", meaning="which noise", choices=("gaussian", "poisson", "camera")),
        ),
        noise,
    ),
    Spec(
        "raindrop",
        "drops on the glass that refract the scene",
        "Roser and Geiger 2009; Porav et al. 2019; DeRaindrop (Qian et al. 2018)",
        (
            Parameter("count", 25, 0, 400, "drops per 256x256 pixels"),
            Parameter("size", 10, 1, 120, "typical radius, pixels"),
            Parameter("softness", 0.6, 0.05, 1, "share of the radius over which the edge fades"),
            Parameter("glow", 0.3, 0, 1, "share of sky light in a drop"),
        ),
        raindrop,
    ),
    Spec(
        "rain",
        "layers of streaks and a veil",
        "Rain100L and Rain100H (Yang et al. 2017)",
        (
            Parameter("density", 0.15, 0, 1, "how many streaks; 1 is one per 40 pixels"),
            Parameter("angle", 0, -45, 45, "direction off the vertical, degrees"),
            Parameter("length", 30, 2, 300, "streak length, pixels"),
            Parameter("width", 1.2, 0.3, 20, "streak width, pixels"),
            Parameter("strength", 0.7, 0, 1, "opacity of the brightest streaks"),
            Parameter("directions", 1, 1, 8, "number of directions", whole=True),
            Parameter("spread", 8, 0, 45, "how far directions stray from the angle, degrees"),
            Parameter("veil", 0.08, 0, 1, "share of the scene lost to far rain"),
            Parameter("cover", 1, 0, 1, "how much streaks may hide of the scene; at 0 they only add light"),
        ),
        rain,
    ),
    Spec(
        "shadow",
        "soft cast shadows, bluer than the light",
        "SRD (Qu et al. 2017); ISTD (Wang et al. 2018)",
        (
            Parameter("strength", 0.75, 0, 1, "share of linear light taken away"),
            Parameter("softness", 0.02, 0.001, 0.5, "width of the penumbra, share of the longer side"),
            Parameter("coverage", 0.35, 0, 1, "share of the picture in shadow"),
            Parameter("tint", 0.2, 0, 1, "how much more red than blue is lost"),
        ),
        shadow,
    ),
    Spec(
        "snow",
        "flakes of several sizes, drawn out by their fall, and a veil",
        "Snow100K (Liu et al. 2018)",
        (
            Parameter("density", 0.4, 0, 1, "how many flakes; 1 is one per 70 pixels at size 3"),
            Parameter("size", 3, 0.5, 40, "typical radius of the larger flakes, pixels"),
            Parameter("speed", 3, 0, 200, "how far a flake moves during the exposure, pixels"),
            Parameter("angle", 0, -90, 90, "direction of fall off the vertical, degrees"),
            Parameter("veil", 0.06, 0, 1, "share of the scene lost to far snow"),
        ),
        snow,
    ),
    Spec(
        "missing",
        "holes cut out and filled",
        "RePaint thin masks (Lugmayr et al. 2022)",
        (
            Parameter("kind", "thin", meaning="shape of the holes", choices=("thin", "thick", "box", "text")),
            Parameter("fill", "white", meaning="what fills them", choices=("white", "black", "noise")),
            Parameter("coverage", 0.25, 0, 0.95, "share of the picture that is missing"),
        ),
        missing,
    ),
    Spec(
        "real",
        "blur, resizing, noise, JPEG and sharpening in random order, twice over",
        "Real-ESRGAN (Wang et al. 2021); wild-IR (Luo et al. 2024)",
        (Parameter("level", 1.0, 0, 2, "how strong every stage may be"),),
        real,
    ),
    Spec(
        "scratches",
        "scratches, hairs, dust, creases and torn edges of old prints",
        "damage catalogued by Wan et al. 2020",
        (
            Parameter("amount", 1, 0, 8, "how many marks; 1 is twelve per 256x256 pixels, most of them dust"),
            Parameter("width", 1.5, 0.3, 20, "typical width of a scratch, pixels"),
            Parameter("light", 0.8, 0, 1, "share of the marks that are lighter than the picture"),
            Parameter("torn", 0, 0, 1, "chance that a corner or border is torn off"),
        ),
        scratches,
    ),
    Spec(
        "fade",
        "lost density of each dye and yellowed paper",
        "Wilhelm and Brower 1993",
        (
            Parameter("amount", 0.5, 0, 1, "share of the contrast that may go that has gone"),
            Parameter("yellow", 0.4, 0, 1, "how yellow the paper is"),
            Parameter("cast", 0.4, 0, 1, "how unlike the channels have faded"),
        ),
        fade,
    ),
)
TABLE: dict[str, Spec] = {spec.id: spec for spec in _SPECS}
