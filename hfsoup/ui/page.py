"""The page: its fields, its buttons, and how it is served."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from hfsoup.data.tasks import METRICS
from hfsoup.merges import MERGES
from hfsoup.recipes import RECIPES
from hfsoup.ui.actions import Actions, PageState, describe_method, format_command
from hfsoup.ui.form import LARGEST_SPLIT, Form
from hfsoup.ui.guard import Guard
from hfsoup.ui.style import COLOURS, CSS, FONTS, MONO

# Seconds after which uploaded images are deleted, and the largest upload.
KEPT, LARGEST = 3600, "64mb"
WAITING = 24
HEAD = """<div class="soup-head"><h1>Model soups</h1><p>Average fine-tuned image classifiers into one model, and measure
whether it is better than the best of them.</p></div>"""
EMPTY = """<div class="soup-empty">Enter some fine-tuned models of one base model, and a dataset to evaluate on.<br>
A dry run shows the plan without running it.</div>"""
NO_PUSH = """<p>This page is public: it reads small public repositories and few images, does not push, and deletes what
it baked. The command line above bakes the same soup on your own machine; there, <code>--push ORG/NAME</code> pushes
it.</p>"""
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}


def build_page(*, public: bool) -> gr.Blocks:
    """Build the page.

    Args:
        public: whether the page is public.
    """
    acts = Actions(public=public)
    with gr.Blocks(title="Model soups", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        gr.HTML(HEAD)
        with gr.Row():
            with gr.Column(scale=5, min_width=320):
                fields = _build_fields(public=public)
                with gr.Row():
                    buttons = _build_buttons()
            with gr.Column(scale=6, min_width=320):
                line = gr.Code(
                    format_command(Form(**_defaults(public=public))),
                    language="shell",
                    label="Command line",
                    interactive=False,
                    lines=1,
                    wrap_lines=True,
                    show_line_numbers=False,
                    buttons=["copy"],
                )
                result = gr.HTML(EMPTY, elem_classes="soup", elem_id="result")
                live = gr.HTML("", elem_classes="soup", elem_id="live")
        shown = gr.State(PageState(""), delete_callback=PageState.forget)
        with gr.Column(visible=False) as after:
            outlets = _build_result_tabs(acts, shown)
        _connect_buttons(acts, fields, buttons, [shown, live, result, after], outlets)
        every = [field.change for field in fields]
        gr.on(every, lambda *values: format_command(Form(*values)), fields, line, trigger_mode="always_last", **QUICK)
        for field in fields[1:3]:
            field.change(lambda name: gr.update(info=describe_method(name)), field, field, **QUICK)
    blocks.queue(max_size=WAITING, api_open=False)
    return blocks


def serve_page(
    blocks: gr.Blocks, host: str, port: int, hosts: Sequence[str], ready: Callable[[str], None], *, proxied: bool
) -> None:
    """Serve the page until Ctrl-C, with no telemetry and no share link; `hosts` and `proxied` are those of `Guard`."""
    named = {"middleware": [Middleware(Guard, hosts=list(hosts), proxied=proxied)]}
    theme = gr.themes.Base(primary_hue="orange", neutral_hue="slate", font=FONTS, font_mono=MONO).set(**COLOURS)
    _, url, _ = blocks.launch(
        server_name=host, server_port=port, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
        ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, run_history=False, footer_links=[],
        max_file_size=LARGEST, app_kwargs=named, theme=theme, css=CSS,
    )  # fmt: skip
    ready(url)
    threading.Event().wait()


def _defaults(*, public: bool) -> dict[str, Any]:
    kinds = {"str": "", "bool": False}
    limit = str(LARGEST_SPLIT) if public else ""
    return {f.name: kinds[str(f.type)] for f in dataclasses.fields(Form)} | {"merge": "mean", "limit": limit}


def _build_fields(*, public: bool) -> list[Any]:
    """One field for each of Form's, in its order."""
    where = "repositories or globs, one per line" if public else "repositories, globs or local folders, one per line"
    found = [gr.Textbox(label="Ingredients", lines=2, placeholder="org/model-*", info=where, elem_id="ingredients")]
    with gr.Row():
        recipes = [("default", ""), *((entry.name, entry.name) for entry in RECIPES)]
        found.append(gr.Dropdown(recipes, value="", label="Recipe", info=describe_method(""), elem_id="recipe"))
        merges = [entry.name for entry in MERGES]
        found.append(gr.Dropdown(merges, value="mean", label="Merge", info=describe_method("mean"), elem_id="merge"))
    base = gr.Textbox(
        label="Base",
        placeholder="as the cards say",
        max_lines=1,
        info="for recipes and merges that need it",
        render=False,
    )
    data = "one split for selection, another for test"
    found += [base, gr.Textbox(label="Dataset", placeholder="org/pets", max_lines=1, info=data, elem_id="dataset")]
    with gr.Row():
        found += [
            gr.Textbox(label="Configuration", placeholder="the only one", max_lines=1, min_width=90),
            gr.Textbox(label="Split", placeholder="validation", max_lines=1, min_width=90, elem_id="split"),
            gr.Textbox(label="Test split", placeholder="test", max_lines=1, min_width=90),
        ]
    with gr.Row():
        metrics = [("default", ""), *((name, name) for name in METRICS)]
        found += [
            gr.Dropdown(metrics, value="", label="Metric", min_width=140),
            gr.Textbox(
                _defaults(public=public)["limit"],
                label="Images per split",
                placeholder=f"at most {LARGEST_SPLIT:,}" if public else "all",
                max_lines=1,
                min_width=140,
                elem_id="limit",
            ),
        ]
    with gr.Accordion("More", open=False):
        base.render()
        found.append(gr.Checkbox(label="Figures", info="in the soup's folder, its card and the report"))
        found.append(gr.Textbox(label="Output folder", placeholder="soup, soup-2, …", max_lines=1, visible=not public))
    with gr.Row(visible=not public):
        found.append(
            gr.Textbox(label="Push to", placeholder="nowhere", max_lines=1, scale=3, min_width=160, elem_id="push-to")
        )
        found.append(gr.Checkbox(label="Private", min_width=90, scale=1))
    return found


def _build_buttons() -> tuple[gr.Button, gr.Button, gr.Button]:
    return (
        gr.Button("Dry run", elem_id="dry-run", min_width=90),
        gr.Button("Bake", variant="primary", elem_id="bake", min_width=90),
        gr.Button("Stop", variant="stop", elem_id="stop", min_width=90, interactive=False),
    )


def _build_result_tabs(acts: Actions, shown: gr.State) -> list[Any]:
    """The tabs of a baked soup; the components that a new bake empties, the report first."""
    with gr.Tabs():
        with gr.Tab("Report"):
            report = gr.HTML("", elem_classes="soup", elem_id="report")
        with gr.Tab("Try an image", elem_id="try"), gr.Row():
            with gr.Column(scale=2, min_width=260):
                label, sources = "Classify with the soup and its best ingredient", ["upload", "clipboard"]
                picture = gr.Image(
                    type="filepath", image_mode=None, sources=sources, height=300, label=label, elem_id="picture"
                )
            with gr.Column(scale=3, min_width=300):
                said = gr.HTML("", elem_classes="soup", elem_id="said")
        with gr.Tab("Push", elem_id="pushing"):
            pushed = _build_push_tab(acts, shown)
    picture.change(acts.guess, [shown, picture], said, concurrency_limit=1, **PRIVATE)
    return [report, picture, said, pushed]


def _build_push_tab(acts: Actions, shown: gr.State) -> gr.HTML:
    if acts.public:
        return gr.HTML(NO_PUSH, elem_classes="soup")
    with gr.Row():
        repo = gr.Textbox(label="Repository", placeholder="org/pets-soup", max_lines=1, elem_id="repo", scale=3)
        private = gr.Checkbox(label="Private", scale=1, min_width=90)
    push = gr.Button("Push", variant="primary", elem_id="push")
    pushed = gr.HTML("", elem_classes="soup", elem_id="pushed")
    push.click(acts.push, [shown, repo, private], pushed, **PRIVATE)
    return pushed


def _connect_buttons(
    acts: Actions, fields: Sequence[Any], buttons: Sequence[gr.Button], places: Sequence[Any], after: Sequence[Any]
) -> None:
    """Connect the buttons; `places` are state, progress, result, and the tabs of a baked soup."""
    dry_run, bake, stop = buttons

    def going(act: Callable[[Form], Iterator[PageState]]) -> Callable[..., Iterator[tuple[Any, ...]]]:
        def go(*values: Any) -> Iterator[tuple[Any, ...]]:
            found = PageState("")
            for found in act(Form(*values)):
                yield (found, found.live, found.result, gr.update(visible=False), *_set_buttons(busy=True))
            yield (found, found.live, found.result, gr.update(visible=found.soup is not None), *_set_buttons(busy=True))

        return go

    # One job at a time: a bake uses the whole machine.
    how: dict[str, Any] = {"show_progress": "hidden", "concurrency_id": "work", "concurrency_limit": 1, **PRIVATE}
    outputs = [*places, *buttons]

    def connect(button: gr.Button, act: Callable[[Form], Iterator[PageState]]) -> Any:
        """The event after the job: a click before it would be dropped, so that buttons are enabled only then."""
        over = button.click(going(act), list(fields), outputs, **how)
        return over.then(lambda: _set_buttons(busy=False), None, list(buttons), **QUICK)

    connect(dry_run, acts.dry_run)
    done = connect(bake, acts.bake)
    empty = [None if isinstance(outlet, gr.Image) else "" for outlet in after if outlet.elem_id]
    emptied = done.then(lambda: empty, None, [outlet for outlet in after if outlet.elem_id], **QUICK)
    emptied.then(acts.report, places[0], after[0], **PRIVATE)
    stop.click(_stop_job, places[0], None, **QUICK)


def _set_buttons(*, busy: bool) -> tuple[Any, Any, Any]:
    return tuple(gr.update(interactive=pressable) for pressable in (not busy, not busy, busy))


def _stop_job(shown: PageState) -> None:
    if shown.work:
        shown.work.stop()
