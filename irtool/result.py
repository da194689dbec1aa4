"""What restoring a picture gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from torch import Tensor

from . import picture as pictures
from . import provenance
from .detection import Diagnosis
from .errors import UsageError
from .inputs import to_array, to_tensor
from .picture import Picture
from .plan import Plan


@dataclass(frozen=True, repr=False)
class Result:
    """A restored picture and how it came about.

    Attributes:
        picture: the restored picture; the very one that went in where nothing was to be done.
        plan: what was done.
        diagnosis: what was found at first, or None where the plan came from elsewhere.
        seconds: time spent on diagnosis and restoration, without decoding.
        tiles: tiles computed over all steps.
        peak_bytes: most memory held (see `irtool.engine.Outcome`), None where unknown or nothing was computed.
        source_sha256: of the file that was restored; empty where it was none.
    """

    picture: Picture
    plan: Plan
    diagnosis: Diagnosis | None = None
    seconds: float = 0.0
    tiles: int = 0
    peak_bytes: int | None = None
    source_sha256: str = ""

    def __repr__(self) -> str:
        removed = ", then ".join(map(str, self.plan.removals))
        parts = [f"removed {removed}"] if removed else []
        parts += [f"enlarged {self.plan.upscale.scale} times"] if self.plan.upscale is not None else []
        done = "untouched" if self.untouched else ", ".join(parts)
        return f"<irtool.Result {self.picture.width}x{self.picture.height}, {done}, {self.seconds:.2f} s>"

    @property
    def untouched(self) -> bool:
        """Nothing was to be done: the picture is as it was."""
        return self.plan.empty

    @property
    def array(self) -> np.ndarray:
        """(H, W, 3) sRGB uint8, or uint16 of a 16-bit picture; (H, W, 1) of a gray one; with alpha one channel more."""
        return to_array(self.picture)

    @property
    def tensor(self) -> Tensor:
        """(3, H, W) sRGB float32 in [0, 1], without alpha."""
        return to_tensor(self.picture)

    @property
    def image(self) -> PIL.Image.Image:
        """As a `PIL.Image` of mode RGB, RGBA, L or LA, sRGB, 8 bits per channel (I;16 for 16-bit gray)."""
        array = self.array
        if array.dtype == np.uint16 and array.shape[2] != 1:  # PIL has no 16-bit color
            array = np.round(array / np.float32(257)).astype(np.uint8)
        return PIL.Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)

    def encode(
        self,
        format: str | None = None,
        *,
        quality: int | None = None,
        strip: bool = False,
        notes: list[str] | None = None,
    ) -> bytes:
        """The bytes of the result's file.

        An untouched picture gives back the bytes it came from, unless another format, a quality or `strip` is asked
        for: encoding a clean JPEG once more would do harm.
        What was done to any other is recorded in its XMP (`irtool.provenance`), unless `strip` is set.

        Args:
            format: a format name, by default the picture's own.
            quality: 1 to 100, by default like the source.
            strip: leave metadata out.
            notes: gets a plain sentence for whatever the format could not keep.

        Raises:
            UsageError, PictureError, UnavailableError: as `irtool.picture.encode`.
        """
        kind = pictures.format_named(format or self.picture.format)
        if self.untouched and kind.name == self.picture.format and quality is None and not strip:
            original = self.picture.original
            # A format that is read but not written, such as GIF, comes under another name and must not pass as it.
            if original is not None and pictures.sniff(original[:4096]) == kind.name:
                return original
        picture = self.picture
        if kind.exif and not strip and not self.untouched:
            picture = provenance.recorded(picture, provenance.of(self.plan, self.source_sha256))
            if notes is not None:
                notes += picture.notes[len(self.picture.notes) :]
        return pictures.encode(picture, kind.name, quality=quality, strip=strip, notes=notes)

    def save(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        quality: int | None = None,
        strip: bool = False,
        replace: bool = True,
        notes: list[str] | None = None,
    ) -> Path:
        """Write the result, whole or not at all; the other arguments are those of `encode`.

        Args:
            path: the file to write; without `format` its suffix names the format.
            replace: whether a file that is there already, by the moment of writing, is replaced.

        Raises:
            UsageError: the path is the input, or its suffix names no format.
            PictureError: it cannot be written.
        """
        path = Path(path)
        source = self.picture.source
        if source is not None and pictures.same_file(path, source):
            raise UsageError(f"{path} is the input, which is never written to.", "Choose another name or folder.")
        kind = format or pictures.format_for(path).name
        data = self.encode(kind, quality=quality, strip=strip, notes=notes)
        return pictures.save_bytes(data, path, replace=replace, like=source)
