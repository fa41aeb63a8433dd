"""What ``dpem watch`` does: play logs again, film them, write what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.progress import Progress

from dpem_env.envs.session import Session
from dpem_env.film.animation import MOST_FPS, Picture, Shots, require_ffmpeg, side_by_side, write_gif, write_mp4
from dpem_env.film.frames import Camera, Json, require_same_episode
from dpem_env.film.page import write_page
from dpem_env.logs.recorder import EpisodeLog, read_log
from dpem_env.report.tables import progress
from dpem_env.support.errors import DpemError
from dpem_env.support.files import make_file_writable


def watch(
    paths: list[Path],
    html: Path | None,
    gif: Path | None,
    mp4: Path | None,
    fps: int,
    slots: tuple[int, int] | None,
    data: Path | None,
) -> int:
    """Film the episodes of logs, and write the page, the picture and the video that are asked for."""
    written = {option: path for option, path in (("--html", html), ("--gif", gif), ("--mp4", mp4)) if path is not None}
    if not written:
        raise DpemError("nothing is to be written; give --html FILE, --gif FILE or --mp4 FILE")
    if mp4 is not None:
        require_ffmpeg()
    for option, path in written.items():
        if path.suffix.lower() != option.replace("--", "."):
            raise DpemError(f"{option} is {str(path)!r}; expected a name that ends with {option.replace('--', '.')}")
        if any(path.exists() and path.samefile(log) for log in paths):
            raise DpemError(f"{option} {str(path)!r} is the log itself; choose another name")
    if slots is not None and html is not None and len(written) == 1:
        raise DpemError(
            "--slots is of pictures and videos; a page shows all slots: leave it out, or give --gif or --mp4"
        )
    if gif is not None and fps > MOST_FPS:
        raise DpemError(f"--fps is {fps}; a GIF shows {MOST_FPS} pictures a second at most")
    logs = [read_log(path) for path in paths]
    require_same_episode(logs, [str(path) for path in paths])
    last = logs[0].header["slots"]
    first, until = slots or (0, last)
    if not 0 <= first <= until <= last:
        raise DpemError(f"--slots is {first} {until}; expected two slots from 0 to {last}, in order")
    for option, path in written.items():
        make_file_writable(path, option)
    drawn = gif is not None or mp4 is not None
    shots = [Shots(first, until, log.header["policy"]) for log in logs]
    with progress() as bar:
        films = [
            _filmed(log, bar, f"filming {path.name}", taken if drawn else None, data)
            for log, path, taken in zip(logs, paths, shots, strict=True)
        ]
        if html is not None:
            write_page(html, films)
        for out, write in ((gif, write_gif), (mp4, write_mp4)):
            if out is not None:
                write(out, _told(side_by_side(shots), bar, f"writing {out.name}", 1 + until - first), fps)
    for film, path in zip(films, paths, strict=True):
        for line in film["replay"]:
            print(f"{path}: {line}")
    print(f"wrote {', '.join(map(str, written.values()))}")
    return 0 if all(film["verified"] for film in films) else 1


def _filmed(log: EpisodeLog, bar: Progress, task: str, shots: Shots | None, data: Path | None) -> Json:
    """The film of a log; pictures of it go to `shots`, if there are to be any."""
    number = bar.add_task(task, total=1 + len(log.rows))

    def on_frame(session: Session) -> None:
        if shots is not None:
            shots.take(session)
        bar.advance(number)

    return Camera(log).film(data, on_frame)


def _told(pictures: Iterator[Picture], bar: Progress, task: str, total: int) -> Iterator[Picture]:
    """The pictures, as they are asked for, with a bar that says how many were."""
    number = bar.add_task(task, total=total)
    for picture in pictures:
        yield picture
        bar.advance(number)
