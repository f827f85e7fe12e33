"""`hfsoup ui`: the page from the first field to the push, in headless Chromium, and as a Space for strangers."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from browser import Tab, browser, needs_chromium
from family import NAMES, Family, copy_model, edit_json, logits
from huggingface_hub import HfApi, snapshot_download
from misbehave import GUARD, environment, forget
from PIL import Image
from shell import refused, run

from hfsoup.localhub import LocalHub
from hfsoup.ui.form import Form
from hfsoup.utils import distributed
from hfsoup.utils.text import quoted

pytest.importorskip("gradio")
ROOT = Path(__file__).parents[1]
HOSTILE = "<img src=x onerror=document.title='owned'>\"><script>document.title='owned'</script>"
# A page talks to itself too, so any port of this machine will do.
LOOPBACK = GUARD.replace('or str(address[1]) != os.environ["HUB_PORT"]', "")
FILE, TEXT = "#picture input[type=file]", "document.body.innerText"


@dataclass(frozen=True)
class Served:
    """A page that is up, where it works, and the file in which hosts are noted that it tried to reach."""

    url: str
    folder: Path
    foreign: Path


@contextmanager
def served(hub: LocalHub, folder: Path, *start: str, roots: Sequence[str] = (), **more: str) -> Iterator[Served]:
    """The page in a process of its own whose sockets reach this machine alone."""
    guard, foreign = folder / "guard", folder / "foreign.log"
    guard.mkdir(parents=True)
    (guard / "sitecustomize.py").write_text(LOOPBACK)
    env = environment(
        hub,
        FOREIGN=str(foreign),
        PYTHONPATH=os.pathsep.join([str(guard), *roots]),
        GRADIO_TEMP_DIR=str(folder / "dropped"),
        **more,
    )
    log = folder / "page.log"
    with log.open("w") as file, subprocess.Popen([sys.executable, *start], cwd=folder, env=env, stderr=file) as process:
        try:
            yield Served(_address(log, process), folder, foreign)
        finally:
            process.send_signal(signal.SIGINT)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(600):
        for line in log.read_text().splitlines():
            if line.startswith("the page: "):
                return line.removeprefix("the page: ")
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def own(on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page as its user has it."""
    start = ("-m", "hfsoup", "ui", "--port", "0")
    with served(on_hub, tmp_path_factory.mktemp("page"), *start, roots=[str(ROOT)]) as page:
        yield page


@pytest.fixture
def tab(own: Served, tmp_path: Path) -> Iterator[Tab]:
    """A tab with that page."""
    with browser(tmp_path / "profile") as found:
        found.open(own.url)
        yield found
        assert found.console == []
        assert {url for url in found.asked if not url.startswith((own.url, "data:", "blob:"))} == set()
    assert not own.foreign.exists(), own.foreign.read_text()


def fill(tab: Tab, ingredients: str, dataset: str) -> None:
    tab.fill("#ingredients textarea", ingredients)
    tab.fill("#dataset input", dataset)


def text(tab: Tab, selector: str) -> str:
    return str(tab.wait(f"document.querySelector({selector!r})?.innerText"))


def cells(tab: Tab, table: str) -> list[list[str]]:
    """A table's rows once it is there."""
    tab.wait(f"document.querySelector('#{table}')")
    rows = f"[...document.querySelectorAll('#{table} tbody tr')]"
    found: list[list[str]] = tab.js(f"{rows}.map((row) => [...row.cells].map((cell) => cell.innerText.trim()))")
    return found


def select(tab: Tab, name: str) -> None:
    """Turn to a tab of the page."""
    tab.click_on(f"[...document.querySelectorAll('button[role=tab]')].find((b) => b.innerText.includes('{name}'))")


def guesses(tab: Tab, picture: Path) -> list[dict[str, float]]:
    """Drop a picture; what each model says of it."""
    tab.wait(f"document.querySelector({FILE!r})")
    tab.upload(FILE, picture)
    tab.wait("document.querySelector('.soup-guess')")
    lists = tab.js(
        "[...document.querySelectorAll('.soup-guess')].map((g) => [...g.querySelectorAll('li')].map((li) =>"
        " [li.querySelector('span').innerText, parseFloat(li.querySelector('b').innerText)]))"
    )
    return [dict(one) for one in lists]


def expected(folder: Path, image: Any) -> dict[str, float]:
    """The five likeliest classes of a model folder in per cent, by transformers alone."""
    shares = 100 * logits(folder, [image])[0].softmax(0)
    return {NAMES[n]: round(float(shares[n]), 1) for n in shares.topk(5).indices}


@needs_chromium
def test_from_a_glob_to_a_push(tab: Tab, own: Served, on_hub: LocalHub, vit: Family, images: Any) -> None:
    """Dry run, bake, numbers as recorded, report, a picture on both models, push: each by the page's own buttons."""
    fill(tab, "kit/vit-*", "kit/shapes")
    tab.wait(f"{TEXT}.includes(`hfsoup bake 'kit/vit-*' --dataset kit/shapes`)")
    tab.click("#dry-run")
    assert [row[0].partition("@")[0] for row in cells(tab, "soup-plan")] == [
        *(f"kit/vit-{n}" for n in (1, 2, 3, 10)), "kit/shapes",
    ]  # fmt: skip
    assert "nothing was pulled, written or pushed" in text(tab, "#result")
    assert not (own.folder / "soup").exists()

    tab.click("#bake")
    shown = cells(tab, "soup-ingredients")
    record = json.loads((own.folder / "soup/soup.json").read_text())
    assert [row[1] for row in shown] == [f"{100 * i['score']['value']:.2f} %" for i in record["ingredients"]]
    weights = [i["coefficient"] for i in record["ingredients"]]
    assert [row[2] for row in shown] == [f"{w:.3f}" if w else "left out" for w in weights]
    assert f"test accuracy {100 * record['test']['soup']['value']:.2f} %" in text(tab, "#result")
    # The start is a row, too.
    assert len(cells(tab, "soup-steps")) == 1 + len(record["trace"])

    frame = "document.querySelector('iframe.soup-report')"
    assert "allow-same-origin" not in tab.js(f"{tab.wait(f'{frame}?.sandbox.value') and frame}.sandbox.value")
    assert "<title>Soup report: soup</title>" in tab.js(f"{frame}.srcdoc")

    select(tab, "Try an image")
    image = images["test"][3]["image"]
    image.save(own.folder / "one.png")
    best = max(record["ingredients"], key=lambda i: i["score"]["value"])["id"].removeprefix("kit/")
    member = next(folder for folder in vit.folders if folder.name == best)
    assert guesses(tab, own.folder / "one.png") == [expected(own.folder / "soup", image), expected(member, image)]

    select(tab, "Push")
    tab.fill("#repo input", "kit/from-page")
    tab.click("#push")
    assert "kit/from-page" in text(tab, "#pushed a")
    api = HfApi(token=on_hub.token)
    assert "model.safetensors" in api.list_repo_files("kit/from-page")
    api.delete_repo("kit/from-page")


@needs_chromium
def test_an_error_is_shown_and_a_bake_can_be_stopped(tab: Tab, on_hub: LocalHub) -> None:
    """What a command line would print stands on the page; Stop ends a bake that pulls, and the next one goes on."""
    fill(tab, "kit/nothing-*", "kit/shapes")
    tab.click("#bake")
    assert "nothing matches 'kit/nothing-*'" in text(tab, ".soup-error")
    tab.fill("#limit input", "many")
    tab.wait(f"{TEXT}.includes('# expected a number of images')")
    tab.fill("#limit input", "24")
    on_hub.fault("/api/datasets/", stall=1.0)
    fill(tab, "kit/vit-1 kit/vit-2", "kit/shapes")
    tab.click("#bake")
    tab.wait("document.querySelector('.soup-live li.running')")
    tab.click("#stop")
    tab.wait("document.querySelector('#live').innerText.includes('stopped')")
    on_hub.clear_faults()
    # A click in the moment before the page hears that the first bake has ended is not taken: one more each second.
    tab.js("window.again = setInterval(() => document.querySelector('#bake').click(), 1000)")
    tab.wait("document.querySelector('.soup-live li.running')")
    tab.js("clearInterval(window.again)")
    assert len(cells(tab, "soup-ingredients")) == 2


@needs_chromium
def test_markup_of_a_repository_is_only_text(tab: Tab, own: Served, vit: Family, images: Any) -> None:
    """Class names that hold scripts stay text in the report and beside a picture."""
    names = [HOSTILE, *NAMES[1:]]
    for n, folder in enumerate(vit.folders[:2]):
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        edit_json(copy_model(folder, own.folder / f"m-{n}") / "config.json", **labels)
    images["test"][0]["image"].save(own.folder / "first.png")
    tab.fill("#ingredients textarea", "./m-0\n./m-1")
    tab.click("#bake")
    tab.wait("document.querySelector('#result').innerText.includes('othing was measured')")
    tab.wait("document.querySelector('iframe.soup-report')")
    select(tab, "Try an image")
    (found,) = guesses(tab, own.folder / "first.png")
    assert any("<img src=x" in name for name in found)
    assert tab.js("document.title") == "Model soups"
    assert tab.js("document.querySelector('img[src=x]')") is None


def test_another_name_for_this_machine_is_not_answered(own: Served) -> None:
    """A site whose name leads to this machine cannot use the page of whoever looks at that site."""
    port = own.url.rsplit(":", 1)[1].strip("/")
    assert httpx2.get(own.url).status_code == 200
    assert httpx2.get(own.url, headers={"Host": f"localhost:{port}"}).status_code == 200
    for host in ("elsewhere.example", f"elsewhere.example:{port}", f"127.0.0.1.elsewhere.example:{port}", "", "[x"):
        assert httpx2.get(own.url, headers={"Host": host}).status_code == 400


def join(page: Served, data: list[object], function: int = 0, **headers: str) -> httpx2.Response:
    """Call a function of the page as its own script does."""
    call = {"data": data, "fn_index": function, "session_hash": "visitor", "event_data": None, "trigger_id": None}
    return httpx2.post(f"{page.url}gradio_api/queue/join", json=call, headers=headers)


def raw(page: Served, path: str) -> tuple[int, bytes]:
    """Ask for a path as it is written, which clients of HTTP would tidy up."""
    with closing(HTTPConnection(urlsplit(page.url).netloc, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://127.0.0.1:1"])
def test_another_site_cannot_use_the_page(own: Served, origin: str) -> None:
    """A form or script of another site is refused whatever it posts or loads; a link to the page may be followed."""
    assert join(own, [], Origin=origin).status_code == 403
    upload = {"files": ("a.png", b"x", "image/png")}
    answer = httpx2.post(f"{own.url}gradio_api/upload", files=upload, headers={"Origin": origin})
    assert answer.status_code == 403
    loading = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert httpx2.get(f"{own.url}config", headers=loading).status_code == 403
    assert httpx2.get(own.url, headers={**loading, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert join(own, [], Origin=own.url.rstrip("/")).status_code == 200


def give_no_file(page: Served, secret: Path) -> None:
    """No route of the server gives a file of the machine, whichever way its path is written."""
    assert secret.is_file()
    name = secret.name
    ways = [str(secret), f"/../..{secret}", f"./{name}", name, f"file://{secret}", f"%2E%2E%2F{name}"]
    ways += [f"/..%2f..{secret}", f"/./{secret}", "/etc/passwd", "/proc/self/environ", "soup.json", "../page.log"]
    for path in ways:
        for route in ("gradio_api/file=", "gradio_api/file/", "file=", "static/", "assets/", "svelte/"):
            status, found = raw(page, f"/{route}{path}")
            assert status >= 400, (route, path)
            assert b"a secret" not in found
    config = httpx2.get(f"{page.url}config").json()
    (image,) = [part["id"] for part in config["components"] if part["type"] == "image"]
    functions = [part["id"] for part in config["dependencies"] if image in part["inputs"]]
    assert functions
    component = {"path": str(secret), "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
    for function in functions:
        assert join(page, [None, component], function).status_code == 200
        with httpx2.stream("GET", f"{page.url}gradio_api/queue/data?session_hash=visitor", timeout=30) as answer:
            told = next(line for line in answer.iter_lines() if "process_completed" in line)
        assert json.loads(told.removeprefix("data: "))["success"] is False
        assert "a secret" not in told


def fetch_nothing(page: Served) -> None:
    """No route of the server asks another host for anything."""
    there = "http://elsewhere.example/a.png"
    for route in ("file=", "proxy=", "stream/", "file/"):
        for path in (there, there.replace("http", "HTTPS"), f"%20{there}", there.replace(":", "%3A")):
            assert raw(page, f"/gradio_api/{route}{path}")[0] >= 400
    for path in (there, " " + there, "//elsewhere.example/a", "ftp://elsewhere.example/a"):
        component = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        assert join(page, [None, component]).status_code == 403
        assert join(page, [[{"deep": component}]]).status_code == 403
    assert not page.foreign.exists(), page.foreign.read_text()


def offer_no_other_routes(page: Served) -> None:
    """What gradio serves for other pages, for developers and for the owner of a Space is not there."""
    for path in ("monitoring", "monitoring/summary", "gradio_api/dev/reload", "gradio_api/runs", "gradio_api/token"):
        assert httpx2.get(f"{page.url}{path}").status_code == 404
    for path in ("component_server", "call/bake", "call/v2/bake", "run/bake", "api/bake", "process_recording"):
        assert httpx2.post(f"{page.url}gradio_api/{path}", json={"data": []}).status_code == 404
    for path in ("gradio_api/vibe-edit/", "login", "gradio_api/run-history/connect"):
        assert httpx2.post(f"{page.url}{path}", json={}).status_code == 404
    assert httpx2.put(f"{page.url}config").status_code in (404, 405)


@pytest.mark.parametrize("check", [give_no_file, fetch_nothing, offer_no_other_routes])
@pytest.mark.parametrize("kind", ["own", "space"])
def test_the_server_gives_only_its_page(
    kind: str, check: Callable[..., None], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """By real requests to the running page, as its user has it and as a Space."""
    page: Served = request.getfixturevalue(kind)
    (secret := tmp_path / "secret.txt").write_text("a secret")
    check(page, secret) if check is give_no_file else check(page)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"push": "kit/taken"}, "this page does not push"),
        ({"metric": "kit/stranger"}, '"success":false'),
        ({"ingredients": "https://elsewhere.example/kit/vit-1"}, "name of a repository on the Hub"),
        ({"ingredients": "hf://kit/vit-1 /etc"}, "name of a repository on the Hub"),
        ({"dataset": "https://elsewhere.example/a.parquet"}, "name of a repository on the Hub"),
        ({"dataset": "/etc"}, "name of a repository on the Hub"),
        ({"base": "~/models"}, "name of a repository on the Hub"),
        ({"limit": "100000"}, "2 to 2,000 images"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_stranger_cannot_call_for_more(changes: dict[str, str], said: str, space: Served, on_hub: LocalHub) -> None:
    """The page's own calls, made by hand with what its form does not offer, are refused before anything is read."""
    form = {"ingredients": "kit/vit-1 kit/vit-2", "dataset": "kit/shapes", "merge": "mean", "limit": "24", **changes}
    values = [form.get(f.name, False if f.name in ("figures", "private") else "") for f in fields(Form)]
    config = httpx2.get(f"{space.url}config").json()
    (button,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "bake"]
    (function,) = [part["id"] for part in config["dependencies"] if [button, "click"] in part["targets"]]
    on_hub.forget_requests()
    assert join(space, values, function).status_code == 200
    with httpx2.stream("GET", f"{space.url}gradio_api/queue/data?session_hash=visitor", timeout=30) as answer:
        told = ""
        for line in answer.iter_lines():
            told += line
            if "process_completed" in line:
                break
    assert said in told
    assert on_hub.requests == []
    assert not space.foreign.exists()


@pytest.mark.parametrize("kind", ["own", "space"])
def test_a_request_has_a_size(kind: str, request: pytest.FixtureRequest) -> None:
    """A call of more than a megabyte and an upload of more than 64 are refused while they arrive."""
    page: Served = request.getfixturevalue(kind)
    assert join(page, ["x" * (2 << 20)]).status_code == 413
    pieces = (b"x" * (1 << 20) for _ in range(70))
    head = {"Content-Type": "multipart/form-data; boundary=b"}
    body = itertools.chain([b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'], pieces)
    try:
        answer = httpx2.post(f"{page.url}gradio_api/upload", content=body, headers=head)
    except httpx2.TransportError:
        return
    assert answer.status_code == 413


def test_a_visitor_has_so_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them a public page answers 429 to that visitor alone, until the span is over; one's own page does not."""
    import asyncio

    from hfsoup.ui import guard

    now = [0.0]
    monkeypatch.setattr(guard, "REQUESTS", 3)

    def ask(page: guard.Guard, visitor: str) -> int:
        sent: list[Any] = []
        where = [(b"host", b"localhost"), (b"x-forwarded-for", f"9.9.9.9, {visitor}".encode())]
        scope = {"type": "http", "method": "POST", "path": "/gradio_api/reset", "client": ("::", 1), "headers": where}

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(page(scope, receive, send))
        return int(sent[0]["status"])

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    public, own = guard.Guard(answer, proxied=True, clock=lambda: now[0]), guard.Guard(answer, ["localhost"])
    assert [ask(public, "1.1.1.1") for _ in range(5)] == [200, 200, 200, 429, 429]
    assert ask(public, "2.2.2.2") == 200
    now[0] += guard.SPAN + 1
    assert ask(public, "1.1.1.1") == 200
    assert {ask(own, "1.1.1.1") for _ in range(5)} == {200}


def test_a_public_page_has_limits(on_hub: LocalHub, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images, ingredients, bytes and time, each told with what to do instead; and its cache is emptied in time."""
    from hfsoup.ui import actions

    form = Form("kit/vit-1 kit/vit-2", "", "mean", "", "kit/shapes", "", "", "", "", "24", False, "", "", False)

    def told(changed: Form) -> str:
        return list(actions.Actions(public=True).bake(changed))[-1].live

    for limit in ("", "2001"):
        assert "this page takes 2 to 2,000 images of a split" in told(replace(form, limit=limit))
    limits = {"MOST_INGREDIENTS": "this page bakes at most 1 ingredients", "LARGEST_PULL": "and 1 B, found 2 and"}
    for name, said in {**limits, "LONGEST": "this page stops after 0 s"}.items():
        with monkeypatch.context() as patch:
            patch.setattr(actions, name, 0.0 if name == "LONGEST" else 1)
            assert said in told(form)
    for name in ("hub", "own"):
        (alone / name).mkdir()
        (alone / name / "blob").write_bytes(bytes(2000))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(alone / "hub"))
    monkeypatch.setenv("HFSOUP_CACHE", str(alone / "own"))
    actions.trim_cache()
    assert (alone / "hub/blob").exists()
    monkeypatch.setattr(actions, "LARGEST_CACHE", 1000)
    actions.trim_cache()
    assert not list(alone.iterdir())


@pytest.fixture(scope="module")
def space(on_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page as a Space: written, uploaded, downloaded and started as the Hub would."""
    folder, api = tmp_path_factory.mktemp("space"), HfApi(token=on_hub.token)
    assert run("ui", "--space", folder / "written").code == 0
    api.create_repo("kit/page", repo_type="space", space_sdk="gradio")
    api.upload_folder(repo_id="kit/page", repo_type="space", folder_path=folder / "written")
    snapshot_download("kit/page", repo_type="space", local_dir=folder / "home", token=on_hub.token)
    where = {"SPACE_ID": "kit/page", "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "0"}
    with served(on_hub, folder / "run", str(folder / "home/app.py"), **where) as page:
        yield page


@needs_chromium
def test_a_space_serves_strangers(space: Served, on_hub: LocalHub, vit: Family, tmp_path: Path) -> None:
    """It bakes what is public, and reads no folder, uses no token and pushes nothing, though it has a token."""
    api = HfApi(token=on_hub.token)
    api.create_repo("kit/unseen", private=True)
    api.upload_folder(repo_id="kit/unseen", folder_path=vit.folders[0])
    with browser(tmp_path / "profile") as tab:
        tab.open(space.url)
        for asked in (str(vit.folders[0]), "../m-*"):
            fill(tab, asked, "kit/shapes")
            tab.click("#bake")
            answer = f"name of a repository on the Hub, or a glob of such, found {quoted(asked)}"
            tab.wait(f"document.querySelector('.soup-error')?.innerText.includes({answer!r})")
        fill(tab, "kit/vit-1", str(tmp_path))
        tab.click("#dry-run")
        tab.wait(f"document.querySelector('.soup-error')?.innerText.includes({str(tmp_path)[:30]!r})")
        fill(tab, "kit/vit-1 kit/unseen", "kit/shapes")
        tab.click("#bake")
        tab.wait("document.querySelector('.soup-error')?.innerText.includes('kit/unseen')")
        fill(tab, "kit/vit-1 kit/vit-2", "kit/shapes")
        tab.click("#bake")
        assert len(cells(tab, "soup-ingredients")) == 2
        assert not tab.js("document.querySelector('#push, #push-to')")
        assert tab.console == []
    api.delete_repo("kit/unseen")
    assert not space.foreign.exists()
    assert [path.name for path in space.folder.glob("*soup*")] == []


@pytest.fixture
def zero_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for `spaces` on ZeroGPU, which pickles what crosses to the GPU's process; and who opens a device."""
    seen: dict[str, Any] = {"inside": False, "opened": []}

    def decorate(task: Any) -> Any:
        def borrowed(*given: Any) -> Iterator[Any]:
            seen["inside"] = True
            with closing(task(*pickle.loads(pickle.dumps(given)))) as steps:
                for step in steps:
                    found = pickle.dumps(step)
                    assert len(found) < 1 << 20
                    yield pickle.loads(found)
            seen["inside"] = False

        return borrowed

    def gpu(*, duration: int) -> Any:
        seen["duration"] = duration
        return decorate

    stand_in = types.ModuleType("spaces")
    stand_in.GPU = gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spaces", stand_in)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    make = distributed._make_accelerator

    def make_seen(device: str) -> Any:
        seen["opened"].append(seen["inside"])
        return make(device)

    monkeypatch.setattr(distributed, "_make_accelerator", make_seen)
    return seen


def test_on_zero_gpu_a_bake_borrows_the_gpu_and_nothing_else_does(
    zero_gpu: dict[str, Any], on_hub: LocalHub, data: Path, alone: Path
) -> None:
    """Pulling and decoding come before it, a device is opened with it only, and the soup classifies without it."""
    from hfsoup.ui import actions

    form = Form("kit/vit-1 kit/vit-2", "uniform", "mean", "", "kit/shapes", "", "", "", "", "24", False, "", "", False)
    page = actions.Actions(public=True)
    assert 0 < zero_gpu["duration"] <= 120
    forget("kit/vit-1", "kit/vit-2")
    on_hub.forget_requests()

    def count_pulled() -> int:
        return sum("/xet-read-token/" in seen.path for seen in on_hub.requests)

    pulled, states = 0, []
    for each in page.bake(form):
        pulled = pulled if zero_gpu["opened"] else count_pulled()
        states.append(each)
    state = states[-1]
    assert zero_gpu["opened"]
    assert all(zero_gpu["opened"])
    assert count_pulled() == pulled > 0
    assert "soup-verdict" in state.result
    assert state.soup is not None
    opened = len(zero_gpu["opened"])
    Image.new("RGB", (16, 16)).save("picture.png")
    assert "the soup" in page.guess(state, "picture.png")
    assert "Soup report" in page.report(state)
    assert len(zero_gpu["opened"]) == opened


def test_stop_ends_a_bake_that_borrowed_the_gpu(zero_gpu: dict[str, Any], on_hub: LocalHub, alone: Path) -> None:
    """The process with the GPU is told, and the page says that scores are kept."""
    from hfsoup.ui import actions
    from hfsoup.ui import zero_gpu as module

    form = Form("kit/vit-*", "greedy", "mean", "", "kit/shapes", "", "", "", "", "24", False, "", "", False)
    for state in actions.Actions(public=True).bake(form):
        if isinstance(state.work, module.Borrowed):
            state.work.stop()
    assert "stopped; scores are kept" in state.live
    assert state.soup is None


def test_a_space_has_its_header_and_needs(tmp_path: Path) -> None:
    """README's header is what the Hub asks of a gradio Space, gradio is the one that it names, nothing is replaced."""
    from importlib.metadata import version

    from huggingface_hub import RepoCard

    assert run("ui", "--space", tmp_path / "space").code == 0
    header = RepoCard.load(tmp_path / "space/README.md").data.to_dict()
    assert header["sdk"] == "gradio"
    assert header["sdk_version"] == version("gradio")
    assert header["app_file"] == "app.py"
    needed = (tmp_path / "space/requirements.txt").read_text().splitlines()
    assert f"gradio=={version('gradio')}" in needed
    assert f"torch=={version('torch').partition('+')[0]}" in needed
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+", line) for line in needed)
    assert "exists already" in refused("ui", "--space", tmp_path / "space", code=1)


def test_without_gradio_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every other extra."""
    monkeypatch.setattr("hfsoup.utils.extras.find_spec", lambda _: None)
    assert "pip install 'hfsoup[ui]'" in refused("ui", code=2)


def test_a_taken_port_is_one_clear_block(hub: LocalHub) -> None:
    """The port of something else is refused with what to type."""
    assert "--port 0" in refused("ui", "--port", hub.url.rsplit(":", 1)[1], code=2)
