"""A film without its player: pictures of the map, slot after slot, as a GIF or a video."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpem_env.envs.rendering import Rendering
from dpem_env.envs.session import Session
from dpem_env.support.errors import DpemError
from dpem_env.support.files import whole_file

Picture = NDArray[np.uint8]  # (height, width, 3)
MOST_FPS = 50  # of a GIF, whose unit of time is 10 ms
COLOURS = 64  # of a GIF: a map has few


class Shots:
    """Pictures of the map in the slots from `first` to `last`, packed: a film would fill the memory otherwise."""

    def __init__(self, first: int, last: int, title: str) -> None:
        self.first, self.last, self.title = first, last, title
        self._packed: list[tuple[bytes, tuple[int, ...]]] = []
        self._rendering: Rendering | None = None

    def __len__(self) -> int:
        return len(self._packed)

    def __iter__(self) -> Iterator[Picture]:
        for packed, shape in self._packed:
            yield np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(shape)

    def take(self, session: Session) -> None:
        """One of the session as it is, if it is wanted."""
        if not self.first <= session.slot <= self.last:
            return
        if self._rendering is None:
            self._rendering = Rendering(session, "rgb_array", self.title)
        picture = self._rendering.render()
        assert isinstance(picture, np.ndarray)
        self._packed.append((zlib.compress(picture.tobytes(), 1), picture.shape))


def side_by_side(films: Sequence[Shots]) -> Iterator[Picture]:
    """The pictures of every slot, of one film or of several beside each other."""
    for pictures in zip(*films, strict=True):
        yield np.concatenate(pictures, axis=1)


def write_gif(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    """Write an animated picture that begins again at its end."""
    from PIL import Image

    images = (Image.fromarray(picture).quantize(COLOURS, dither=Image.Dither.NONE) for picture in pictures)
    first = next(images)
    with whole_file(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=images, duration=1000 / fps, loop=0)


def require_ffmpeg() -> Any:
    """The module imageio_ffmpeg; DpemError with a line on how to install it."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise DpemError("--mp4 needs imageio-ffmpeg: pip install imageio-ffmpeg (--gif needs nothing)") from None
    return imageio_ffmpeg


def write_mp4(path: Path, pictures: Iterator[Picture], fps: int) -> None:
    """Write a video, H.264 in MP4; DpemError without imageio-ffmpeg."""
    first = next(pictures)
    height, width, _ = first.shape
    with whole_file(path) as partial:
        # Its sides are even, as H.264 wants them; the format is named as the file is written under another name.
        size, how = (width, height), {"fps": fps, "macro_block_size": 2, "output_params": ["-f", "mp4"]}
        writer = require_ffmpeg().write_frames(str(partial), size, **how)
        writer.send(None)
        for picture in chain([first], pictures):
            writer.send(np.ascontiguousarray(picture))
        writer.close()
