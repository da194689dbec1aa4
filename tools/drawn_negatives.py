"""Draw clean pictures that look damaged to a network that only knows photographs: pages, screens, comics, stars.

    python tools/drawn_negatives.py PHOTOS OUT [--count 240]

PHOTOS is a folder of clean photographs, used for collages, frames and illustrated pages. tools/detector_tables.py takes
them from OUT = TABLES/drawn. File names begin with their kind; every fifth of a kind is held back (HELD in the name).
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

WORDS = "the of and to in a is that it was for on are as with his they at be this from have or by one".split()  # noqa: SIM905
Draw = Callable[[random.Random, list[Path]], Image.Image]


def _photo(dice: random.Random, photos: list[Path], size: tuple[int, int]) -> Image.Image:
    with Image.open(dice.choice(photos)) as image:
        return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def _size(dice: random.Random) -> tuple[int, int]:
    return dice.choice([(640, 480), (480, 640), (768, 512), (512, 768), (600, 600), (800, 450)])


def _text(
    draw: ImageDraw.ImageDraw, dice: random.Random, box: tuple[int, int, int, int], size: int, color: object
) -> None:
    font = ImageFont.load_default(size)
    left, top, right, bottom = box
    y = top
    while y + size < bottom:
        words, x = [], left
        while True:
            word = dice.choice(WORDS)
            wide = font.getlength(word + " ")
            if x + wide > right:
                break
            words.append(word)
            x += wide
        draw.text((left, y), " ".join(words), fill=color, font=font)
        y += round(size * 1.35)
        if dice.random() < 0.12:
            y += size


def _paper(dice: random.Random) -> tuple[int, int, int]:
    base = dice.randint(225, 255)
    return base, base - dice.randint(0, 6), base - dice.randint(0, 16)


def page(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = _size(dice)
    image = Image.new("RGB", (w, h), _paper(dice))
    draw = ImageDraw.Draw(image)
    margin, columns = dice.randint(20, 60), dice.choice((1, 1, 2))
    wide = (w - margin * (columns + 1)) // columns
    for column in range(columns):
        left = margin + column * (wide + margin)
        _text(draw, dice, (left, margin, left + wide, h - margin), dice.randint(9, 20), (dice.randint(0, 70),) * 3)
    if dice.random() < 0.5:
        size = (dice.randint(wide // 2, wide), dice.randint(h // 6, h // 3))
        image.paste(_photo(dice, photos, size), (margin, dice.randint(margin, h - margin - size[1])))
    return image


def screen(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = dice.choice([(800, 500), (768, 480), (420, 768)])
    dark = dice.random() < 0.4
    back, front = ((dice.randint(20, 45),) * 3, (220,) * 3) if dark else ((dice.randint(235, 255),) * 3, (40,) * 3)
    image = Image.new("RGB", (w, h), back)
    draw = ImageDraw.Draw(image)
    accent = tuple(dice.randint(30, 220) for _ in range(3))
    draw.rectangle((0, 0, w, 34), fill=accent)
    _text(draw, dice, (12, 8, w // 2, 34), 14, (255,) * 3)
    draw.rectangle((0, 34, w // 5, h), fill=tuple(max(0, c - 12) for c in back))
    for row in range(8):
        _text(draw, dice, (10, 50 + 30 * row, w // 5 - 6, 70 + 30 * row), 12, front)
    y = 50
    while y < h - 60:
        high = dice.randint(40, 130)
        draw.rounded_rectangle((w // 5 + 14, y, w - 14, y + high), 6, outline=accent)
        if dice.random() < 0.4:
            image.paste(_photo(dice, photos, (high, high - 8)), (w // 5 + 20, y + 4))
            _text(draw, dice, (w // 5 + 30 + high, y + 6, w - 24, y + high - 4), 12, front)
        else:
            _text(draw, dice, (w // 5 + 24, y + 6, w - 24, y + high - 4), 13, front)
        y += high + 12
    return image


def comic(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = dice.choice([(520, 720), (720, 520), (600, 600)])
    image = Image.new("RGB", (w, h), (252, 250, 244))
    draw = ImageDraw.Draw(image)
    rows = dice.randint(2, 3)
    for row in range(rows):
        columns, top = dice.randint(1, 3), 12 + row * (h - 12) // rows
        bottom = top + (h - 12) // rows - 12
        for column in range(columns):
            left = 12 + column * (w - 12) // columns
            right = left + (w - 12) // columns - 12
            panel = _photo(dice, photos, (right - left, bottom - top)).filter(ImageFilter.MedianFilter(7))
            panel = (
                ImageOps.posterize(panel, 2)
                if dice.random() < 0.7
                else ImageOps.grayscale(panel).convert("1").convert("RGB")
            )
            image.paste(panel, (left, top))
            draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=3)
            box = (left + 8, top + 8, left + (right - left) // 2, top + 50)
            draw.ellipse(box, fill=(255,) * 3, outline=(0, 0, 0), width=2)
            _text(draw, dice, (box[0] + 14, box[1] + 10, box[2] - 10, box[3] - 4), 11, (0, 0, 0))
    return image


def chart(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = _size(dice)
    image = Image.new("RGB", (w, h), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for line in range(6):
        y = 40 + line * (h - 100) // 5
        draw.line((60, y, w - 20, y), fill=(215,) * 3)
    for series in range(dice.randint(1, 4)):
        color = tuple(dice.randint(20, 210) for _ in range(3))
        y = dice.uniform(0.3, 0.7) * h
        points = []
        for x in range(60, w - 20, 14):
            y = min(h - 60, max(40, y + dice.uniform(-26, 26)))
            points.append((x, y))
        if dice.random() < 0.4:
            for x, y in points:
                draw.rectangle((x + 3 * series, y, x + 3 * series + 4, h - 60), fill=color)
        else:
            draw.line(points, fill=color, width=dice.randint(1, 4))
    _text(draw, dice, (60, h - 50, w - 20, h - 20), 13, (60,) * 3)
    return image


def framed(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = _size(dice)
    color = dice.choice([(255,) * 3, (0,) * 3, _paper(dice), tuple(dice.randint(0, 255) for _ in range(3))])
    image = Image.new("RGB", (w, h), color)
    if dice.random() < 0.5:  # one photograph in a border, or with bars above and below
        bars = dice.random() < 0.5
        border = dice.randint(10, 70)
        size = (w, h - 2 * border) if bars else (w - 2 * border, h - 2 * border)
        image.paste(_photo(dice, photos, size), (0 if bars else border, border))
        return image
    columns, rows, gap = dice.randint(2, 4), dice.randint(2, 3), dice.randint(4, 16)
    size = ((w - gap) // columns - gap, (h - gap) // rows - gap)
    for row in range(rows):
        for column in range(columns):
            image.paste(_photo(dice, photos, size), (gap + column * (size[0] + gap), gap + row * (size[1] + gap)))
    return image


def stars(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = _size(dice)
    top, low = (
        (dice.randint(0, 14), dice.randint(0, 20), dice.randint(10, 50)),
        (dice.randint(5, 50), dice.randint(5, 45), dice.randint(20, 70)),
    )
    image = Image.composite(
        Image.new("RGB", (w, h), low), Image.new("RGB", (w, h), top), Image.linear_gradient("L").resize((w, h))
    )
    draw = ImageDraw.Draw(image)
    for _ in range(dice.randint(150, 900)):
        x, y, r, bright = dice.random() * w, dice.random() * h, dice.choice((0.5, 0.5, 0.8, 1.2)), dice.randint(90, 255)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(bright, bright, min(255, bright + 15)))
    ground = [(0, h)]
    y = h * dice.uniform(0.75, 0.95)
    for x in range(0, w + 20, 20):
        y = min(h, max(h * 0.6, y + dice.uniform(-18, 18)))
        ground.append((x, y))
    draw.polygon([*ground, (w, h)], fill=(dice.randint(0, 12),) * 3)
    return image.filter(ImageFilter.GaussianBlur(0.5))


def confetti(dice: random.Random, photos: list[Path]) -> Image.Image:
    w, h = _size(dice)
    image = (
        _photo(dice, photos, (w, h))
        if dice.random() < 0.6
        else Image.new("RGB", (w, h), tuple(dice.randint(0, 255) for _ in range(3)))
    )
    draw = ImageDraw.Draw(image)
    for _ in range(dice.randint(60, 400)):
        x, y, r, turn = dice.random() * w, dice.random() * h, dice.uniform(2, 11), dice.random() * math.pi
        corners = [
            (x + r * math.cos(turn + a) * s, y + r * math.sin(turn + a))
            for a, s in ((0.6, 1), (2.5, 0.7), (3.7, 1), (5.6, 0.7))
        ]
        draw.polygon(corners, fill=tuple(dice.randint(0, 255) for _ in range(3)))
    return image.filter(ImageFilter.GaussianBlur(0.6))


def fence(dice: random.Random, photos: list[Path]) -> Image.Image:
    """A photograph behind bars, a mesh or blinds: lines that are no rain."""
    w, h = _size(dice)
    image = _photo(dice, photos, (w, h))
    draw = ImageDraw.Draw(image)
    step, width, lean = dice.randint(14, 60), dice.randint(2, 9), dice.choice((0, 0, h // 6, h))
    shade = dice.randint(10, 240)
    color = tuple(min(255, max(0, shade + dice.randint(-12, 12))) for _ in range(3))
    for x in range(-h, w + h, step):
        draw.line((x, 0, x + lean, h), fill=color, width=width)
        if lean == h:
            draw.line((x + lean, 0, x, h), fill=color, width=width)
    return image.filter(ImageFilter.GaussianBlur(0.5))


def texture(dice: random.Random, photos: list[Path]) -> Image.Image:
    """Fur, grass or brushed metal: short strokes over a smooth ground."""
    w, h = _size(dice)
    base = [dice.randint(30, 225) for _ in range(3)]
    image = Image.new("RGB", (w, h), tuple(base))
    draw = ImageDraw.Draw(image)
    lean, spread, long = dice.uniform(0, math.pi), dice.uniform(0.1, 0.9), dice.uniform(6, 40)
    for _ in range(dice.randint(4000, 14000)):
        x, y = dice.random() * w, dice.random() * h
        turn = lean + math.sin(x / 90) * 0.4 + math.cos(y / 70) * 0.4 + dice.gauss(0, spread / 2)
        light = dice.gauss(0, 28)
        color = tuple(int(min(255, max(0, c + light))) for c in base)
        length = long * dice.uniform(0.4, 1.3)
        draw.line(
            (x, y, x + length * math.cos(turn), y + length * math.sin(turn)), fill=color, width=dice.choice((1, 1, 2))
        )
    return image.filter(ImageFilter.GaussianBlur(0.7))


def product(dice: random.Random, photos: list[Path]) -> Image.Image:
    """A thing cut out on a plain ground with the soft shade below it that shops put there."""
    w, h = _size(dice)
    ground = dice.randint(238, 255)
    image = Image.new("RGB", (w, h), (ground,) * 3)
    size = (dice.randint(w // 3, w * 2 // 3), dice.randint(h // 3, h * 2 // 3))
    place = ((w - size[0]) // 2, (h - size[1]) // 2)
    shade = Image.new("L", (w, h), 0)
    ImageDraw.Draw(shade).ellipse(
        (place[0], place[1] + size[1] - 24, place[0] + size[0], place[1] + size[1] + 24), fill=dice.randint(30, 110)
    )
    image.paste((60, 60, 60), mask=shade.filter(ImageFilter.GaussianBlur(14)))
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), dice.randint(8, min(size) // 2), fill=255)
    image.paste(_photo(dice, photos, size), place, mask)
    return image


KINDS: dict[str, Draw] = {
    "page": page, "screen": screen, "comic": comic, "chart": chart, "framed": framed, "stars": stars,
    "confetti": confetti, "fence": fence, "texture": texture, "product": product,
}  # fmt: skip


def draw_all(photos: list[Path], out: Path, count: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in KINDS.items():
        for number in range(count // len(KINDS)):
            dice = random.Random(f"{name} {number}")
            kept = "held" if number % 5 == 4 else "train"
            draw(dice, photos).save(out / f"{name}_{kept}_{number:03d}.webp", quality=94)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=240)
    given = parser.parse_args()
    photos = sorted(p for p in given.photos.rglob("*") if p.suffix.lower() in (".jpg", ".png", ".webp"))
    draw_all(photos, given.out, given.count)


if __name__ == "__main__":
    main()
