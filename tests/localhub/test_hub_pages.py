"""What a browser shows at the addresses that clients print."""

from __future__ import annotations

import io
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from PIL import Image

from hfsoup.localhub import LocalHub
from tests.browser import browser, needs_chromium

CARD = """---
license: mit
tags: [model-soup]
---
# A soup
A *soup* with a [file](./config.json#top), a [folder up](../../etc/passwd), <b onclick="run()">bold</b> and `code <i>`.

<picture><source media="(prefers-color-scheme: dark)" srcset="plot.png"><img src="plot.png" alt="plot" onerror="run()">
</picture>

| a | b |
|---|---|
| 1 | <script>run()</script>2 |

[one](javascript:run()) <a href="java&#115;cript:run()">two</a> <a href="data:text/html,x">three</a>
<a href="//evil">4</a>
<style>body { display: none }</style><svg onload=run()><a href="x">5</a></svg><iframe src="x"></iframe>
<form><input></form>
<div align="center"><center>unclosed
"""


@pytest.fixture
def filled(api: HfApi, repo: str) -> str:
    """A model with a hostile card, a picture and odd names."""
    picture = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(picture, "PNG")
    files = {
        "README.md": CARD.encode(),
        "plot.png": picture.getvalue(),
        "config.json": b"{}",
        "d/<b> &.txt": b"</pre>x",
    }
    files["model.safetensors"] = bytes(2_500_000)
    made = [CommitOperationAdd(path, content) for path, content in files.items()]
    api.create_commit(repo, made, commit_message="Add <i>it</i>")
    return repo


def test_a_card_is_shown_and_runs_nothing(web: httpx2.Client, filled: str) -> None:
    """Markdown and harmless HTML stay, paths lead into the repo, and what could run or ask elsewhere is gone."""
    got = web.get(f"/{filled}")
    main = got.text.partition("<main>")[2]
    for shown in ("<h1>A soup</h1>", "<em>soup</em>", "<b>bold</b>", "<code>code &lt;i&gt;</code>", "<td>2</td>"):
        assert shown in main
    assert f'<a href="/{filled}/blob/main/config.json#top">' in main
    assert f'<img src="/{filled}/resolve/main/plot.png" alt="plot">' in main
    for gone in ("<script", 'run()"', "onclick", "onerror", "onload", "<style", "<svg", "<iframe", "<form", "<input"):
        assert gone not in main
    for gone in ('javascript:run()"', "data:text", "//evil", "passwd"):
        assert gone not in main
    assert main.index("unclosed") < main.index("</center></div>") < main.index("</main>")
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert "script-src" not in got.headers["content-security-policy"]


def test_files_have_sizes_and_links(web: httpx2.Client, filled: str) -> None:
    """Every file of the list leads to a page of it and to its bytes, whatever its name."""
    text = web.get(f"/{filled}/tree/main").text
    assert f'href="/{filled}/resolve/main/model.safetensors"' in text
    assert "2.5 MB" in text
    assert "Add &lt;i&gt;it&lt;/i&gt;" in text
    below = web.get(f"/{filled}/tree/main/d").text
    address = f"/{filled}/blob/main/d/%3Cb%3E%20%26.txt"
    assert f'href="{address}"' in below
    assert "&lt;/pre&gt;x" in web.get(address).text
    assert web.get(address.replace("blob", "resolve")).content == b"</pre>x"
    assert web.get(f"/{filled}/resolve/main/plot.png").headers["content-type"] == "image/png"
    assert f'<img src="/{filled}/resolve/main/plot.png"' in web.get(f"/{filled}/blob/main/plot.png").text


def test_what_clients_print_is_a_page(web: httpx2.Client, api: HfApi, repo: str) -> None:
    """The addresses of a repo of each kind, a commit, a pull request, a discussion and a collection."""
    made = api.upload_file(path_or_fileobj=b"new", path_in_repo="x.txt", repo_id=repo, commit_message="<b>one</b>")
    asked = api.upload_file(
        path_or_fileobj=b"other", path_in_repo="x.txt", repo_id=repo, create_pr=True, commit_description="**because**"
    )
    talk = api.create_discussion(repo, "why", description="so")
    listed = api.create_collection(f"Soups {repo}")
    api.add_collection_item(listed.slug, repo, "model")
    kinds = [api.create_repo(f"{repo}-{kind}", repo_type=kind, space_sdk="static") for kind in ("dataset", "space")]
    for address, shown in (
        (made.commit_url, "&lt;b&gt;one&lt;/b&gt;"),
        (made.commit_url, "+new"),
        (asked.pr_url, "<strong>because</strong>"),
        (asked.pr_url, "+other"),
        (talk.url, "why"),
        (listed.url.replace("https://huggingface.co", ""), repo),
        (f"/{repo}/tree/refs%2Fpr%2F1", "x.txt"),
        (f"/{repo}/discussions", "pull request"),
        (f"/{repo}/commits/main", "initial commit"),
        *((str(kind), kind.repo_id.partition("/")[2]) for kind in kinds),
        ("/ann", repo),
    ):
        got = web.get(str(address), headers={"Accept": "text/html"})
        assert (got.status_code, got.headers["content-type"]) == (200, "text/html; charset=utf-8"), address
        assert shown in got.text, address


def test_pages_keep_what_is_private(site: LocalHub, api: HfApi, repo: str) -> None:
    """A browser without a token is asked for one, and a page that says so; programs get JSON as ever."""
    api.update_repo_settings(repo, visibility="private")
    for path in (repo, f"{repo}/tree/main", f"{repo}/blob/main/.gitattributes", f"{repo}/discussions"):
        got = httpx2.get(f"{site.url}/{path}", headers={"Accept": "text/html"})
        assert (got.status_code, got.headers["www-authenticate"]) == (401, 'Basic realm="Hub"')
        assert "Repository not found" in got.text
        assert httpx2.get(f"{site.url}/{path}").json()["error"] == "Repository not found"
    assert repo not in httpx2.get(site.url, headers={"Accept": "text/html"}).text
    assert httpx2.get(f"{site.url}/{repo}", auth=("ann", site.token)).status_code == 200
    assert httpx2.get(f"{site.url}/nobody-here", headers={"Accept": "text/html"}).status_code == 404


@needs_chromium
@pytest.mark.parametrize("width", [1200, 390])
def test_in_a_browser(site: LocalHub, filled: str, tmp_path: Path, width: int) -> None:
    """The card fits the screen, shows its picture, runs no script and asks no other server."""
    with browser(tmp_path) as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        tab.open(f"{site.url}/{filled}")
        tab.wait("document.images.length && document.images[0].complete")
        assert tab.js("[...document.images].map(image => image.naturalWidth)") == [30]
        assert tab.js("document.documentElement.scrollWidth") == width
        assert tab.js("document.scripts.length") == 0
        assert [address for address in tab.asked if not address.startswith((site.url, "data:"))] == []
