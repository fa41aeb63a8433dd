"""`dpem watch`: a page that a browser plays, pictures, a video, and bad input in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dpem_env import scenarios
from dpem_env.film.page import PLAYER
from support.command_line import complaint, dpem
from support.episode_logs import Header, Row, record_episode, rewrite

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
MESH = scenarios.get("mesh20-v0", slots=40, request_rate=16.0)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    record_episode(folder / "local.parquet", MESH, "maxweight")
    record_episode(folder / "central.parquet", MESH, "central-reactive", delay=0.5)
    return [folder / "local.parquet", folder / "central.parquet"]


@pytest.fixture(scope="module")
def page(logs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "episode.html"
    assert dpem("watch", *map(str, logs), "--html", str(out)) == 0
    return out.read_text("utf-8")


def in_chromium(page: str, script: str, folder: Path) -> Any:
    """What the script, an expression, is in the page, and what was complained of in it."""
    told = f"document.title = 'told'; document.body.dataset.told = JSON.stringify([{script}, window.complaints]);"
    first = "<script>window.complaints = []; addEventListener('error', event => complaints.push(event.message));"
    first += "console.error = console.warn = (...said) => complaints.push(said.join(' '));</script>"
    probed = page.replace("<head>", f"<head>{first}").replace("</body>", f"<script>{told}</script></body>")
    (folder / "probed.html").write_text(probed, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", (folder / "probed.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'data-told="([^"]*)"', dom)
    assert found is not None, dom[-2000:]
    value, complaints = json.loads(found[1].replace("&quot;", '"').replace("&amp;", "&"))
    assert complaints == []
    return value


KEY = "(key, more = {}) => document.dispatchEvent(new KeyboardEvent('keydown', {key, ...more}))"
MAP = "() => document.querySelector('svg.map').innerHTML"


@needs_chromium
def test_scrubbing_changes_the_picture(page: str, tmp_path: Path) -> None:
    drag = "slot => { const input = document.getElementById('slot'); input.value = slot; "
    drag += "input.dispatchEvent(new Event('input')); return map() }"
    script = f"(() => {{ const map = {MAP}, drag = {drag}; return [drag(10), drag(25), drag(10)] }})()"
    first, second, again = in_chromium(page, script, tmp_path)
    assert first == again != second
    assert "claim" in first


@needs_chromium
def test_keys_move_the_clock(page: str, tmp_path: Path) -> None:
    keys = [("End", ""), ("ArrowLeft", ""), ("ArrowLeft", ", {shiftKey: true}"), ("Home", ""), ("ArrowRight", "")]
    pressed = ", ".join(f"(key('{name}'{more}), slot)" for name, more in keys)
    playing = "(key(' '), timer !== null), (key('+'), document.getElementById('speed').value), (key(' '), timer)"
    script = f"(() => {{ const key = {KEY}; return [{pressed}, {playing}] }})()"
    assert in_chromium(page, script, tmp_path) == [40, 39, 29, 0, 1, True, "10", None]


@needs_chromium
def test_a_node_that_is_clicked_tells_of_itself(page: str, tmp_path: Path) -> None:
    click = "document.querySelectorAll('.node')[3].dispatchEvent(new MouseEvent('click'))"
    texts = "[...document.querySelectorAll('.panel')].map(panel => panel.innerText)"
    local, central = in_chromium(page, f"(show(20), {click}, {texts})", tmp_path)
    for told in (local, central):
        assert told.startswith("node 3\n")
        assert all(word in told for word in ("memory", "queue", "stock", "action", "legal: wait", "forecast"))
    assert "expected (grey)" in local
    assert "expected (grey)" not in central


@needs_chromium
def test_what_is_drawn_is_what_the_frame_holds(page: str, tmp_path: Path) -> None:
    count = "kind => document.querySelectorAll(`#film-0 .${kind}`).length"
    script = f"""(() => {{ const count = {count}, film = FILMS[0]; return d3.range(41).map(s => (show(s), [
        count('ring'), film.frames[s].c.length, count('request.pending'),
        film.requests.filter(request => fateOf(request, s) === 'pending').length])) }})()"""
    drawn = in_chromium(page, script, tmp_path)
    assert all(rings == contended and arcs == pending for rings, contended, arcs, pending in drawn)
    assert max(rings for rings, *_ in drawn) > 0


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert not re.search(r"@import|url\(", page)
    assert (PLAYER / "d3.LICENSE").is_file()


def test_names_cannot_end_the_script(logs: list[Path], tmp_path: Path) -> None:
    def rename(header: Header, rows: list[Row]) -> None:
        header["policy"] = "</script><b>"

    log = rewrite(logs[0], tmp_path / "log", rename)
    assert dpem("watch", str(log), "--html", str(tmp_path / "page.html")) == 0
    assert "</script><b>" not in (tmp_path / "page.html").read_text("utf-8")


def test_a_page_of_a_changed_log_says_so(logs: list[Path], tmp_path: Path) -> None:
    def change(header: Header, rows: list[Row]) -> None:
        rows[5]["expired"] += 1

    log = rewrite(logs[0], tmp_path / "log", change)
    assert dpem("watch", str(log), "--html", str(tmp_path / "page.html")) == 1
    assert '"verified":false' in (tmp_path / "page.html").read_text("utf-8")


def test_a_gif_has_a_picture_of_every_slot_that_was_asked_for(logs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "both.gif"
    assert dpem("watch", *map(str, logs), "--gif", str(out), "--slots", "3", "8", "--fps", "4") == 0
    with Image.open(out) as film:
        assert (film.n_frames, film.info["duration"], film.size) == (6, 250, (1800, 640))  # type: ignore[attr-defined]
        pictures = []
        for number in range(6):
            film.seek(number)
            pictures.append(np.asarray(film.convert("RGB")))
    assert all((one != other).any() for one, other in pairwise(pictures))


def test_a_video_is_one(logs: list[Path], tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "local.mp4"
    assert dpem("watch", str(logs[0]), "--mp4", str(out), "--slots", "1", "8", "--fps", "4") == 0
    frames = ffmpeg.read_frames(str(out))
    about = next(frames)
    assert (about["size"], about["fps"], sum(1 for _ in frames)) == ((900, 640), 4.0, 8)


def test_bad_input_is_one_line(
    logs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, gif = str(logs[0]), ("--gif", str(tmp_path / "a.gif"))
    assert "nothing is to be written; give --html FILE" in complaint(capsys, "watch", log)
    assert "'third' is one argument too many" in complaint(capsys, "watch", log, log, "third")
    assert "--slots is 8 3; expected two slots from 0 to 40" in complaint(
        capsys, "watch", log, *gif, "--slots", "8", "3"
    )
    assert "--slots is 0 41" in complaint(capsys, "watch", log, *gif, "--slots", "0", "41")
    other = tmp_path / "other.parquet"
    record_episode(other, MESH.override(slots=4))
    assert f"{log} and {other} are of different episodes" in complaint(capsys, "watch", log, str(other), *gif)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert "--mp4 needs imageio-ffmpeg: pip install" in complaint(
        capsys, "watch", log, "--mp4", str(tmp_path / "a.mp4")
    )
    assert list(tmp_path.iterdir()) == [other]
    assert "--html '/proc/none' cannot be written" in complaint(capsys, "watch", log, "--html", "/proc/none/a.html")
    (tmp_path / "folder.gif").mkdir()
    assert "folder.gif' is a folder" in complaint(capsys, "watch", log, "--gif", str(tmp_path / "folder.gif"))
    os.mkfifo(tmp_path / "pipe.html")
    assert "is no regular file" in complaint(capsys, "watch", log, "--html", str(tmp_path / "pipe.html"))
    assert "expected a name that ends with .gif" in complaint(capsys, "watch", log, "--gif", "a.png")
    assert "a GIF shows 50 pictures a second at most" in complaint(capsys, "watch", log, *gif, "--fps", "51")
    assert "--slots is of pictures" in complaint(capsys, "watch", log, "--html", "a.html", "--slots", "1", "2")
    own = tmp_path / "log.html"
    own.write_bytes(Path(log).read_bytes())
    assert "is the log itself" in complaint(capsys, "watch", str(own), "--html", str(own))
