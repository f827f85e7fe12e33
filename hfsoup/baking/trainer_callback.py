"""A callback for `transformers.Trainer`: when training ends, the checkpoints of the run become a soup."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from logging import INFO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy
from transformers.utils.logging import get_logger

from hfsoup.averaging.averager import Averager
from hfsoup.averaging.mix import Mix
from hfsoup.averaging.writer import write_configs, write_weights
from hfsoup.baking.gather import gather_family
from hfsoup.baking.measure import run_recipe
from hfsoup.baking.pipeline import run_bake, save_and_push
from hfsoup.baking.requirements import needs_images, one_is_enough
from hfsoup.baking.soup import Soup
from hfsoup.checkpoints.classifier import hide_loading_bars
from hfsoup.evaluation.scores import NEGATED, Score
from hfsoup.options.options import Options
from hfsoup.provenance.result import Composition, Run, SearchResult
from hfsoup.recipes import RECIPES
from hfsoup.reports.figures import require_matplotlib
from hfsoup.reports.measurements import format_score, name_metric
from hfsoup.utils.errors import SoupError, UsageError
from hfsoup.utils.progress import Clock, Watch
from hfsoup.utils.text import format_count

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

LOG = get_logger("transformers.hfsoup")
"""A child of transformers' logger, so that its lines appear among those of Trainer."""
LOG.setLevel(INFO)


class SoupCallback(TrainerCallback):
    """Bake a soup of one run's checkpoints at its end; the Trainer and its model are left as they were.

    Training is never lost: what is wrong is an error before the first step if it can be known by then, and a warning
    after the last one.

    Args:
        recipe: `latest`, or any other; one that searches needs `trainer`.
        trainer: whose evaluation set and metric score the candidates. The metric is that of
            `metric_for_best_model`, else the loss. The numbers select, so they do not report.
        output: the folder to write; `soup` in the Trainer's output folder by default.
        options: further ones of `hfsoup.bake`, such as `last`, `decay`, `push`, `private`, `license`, `overwrite`.

    Attributes:
        soup: the soup, once training has ended; None in all processes but the main one.

    Example:
        With a `trainer` that has an evaluation set and saves a checkpoint after every epoch:

        >>> import hfsoup
        >>> callback = hfsoup.SoupCallback("greedy", trainer=trainer)
        >>> trainer.add_callback(callback)
        >>> _ = trainer.train()
        >>> callback.soup
        <Soup: greedy, ... of 3 ingredients; ...
        >>> callback.soup.path
        PosixPath('.../soup')
    """

    def __init__(
        self,
        recipe: str = "latest",
        *,
        trainer: Trainer | None = None,
        output: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.soup: Soup | None = None
        self._options = Options.of({**options, "recipe": recipe, "output": None if output is None else str(output)})
        self._trainer, self._steps = trainer, set[int]()
        if self._options.dataset:
            raise UsageError("the callback scores on the Trainer's evaluation set only", hint=_suggest_bake(recipe))
        if RECIPES.get(recipe).epochs:
            what = f"the recipe {recipe} learns from images, and the Trainer's evaluation set only scores"
            raise UsageError(what, hint=_suggest_bake(recipe))
        needs_images(self._options)
        if trainer is not None:
            _require_scoring(trainer)
        elif RECIPES.get(recipe).needs_data:
            hint = f'trainer.add_callback(SoupCallback("{recipe}", trainer=trainer))'
            raise UsageError(f"the recipe {recipe} needs data to search with", hint=hint)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Check that checkpoints will be saved, and that the soup may be written and pushed."""
        from hfsoup.hub.push import require_push_access

        if args.save_strategy == "no":
            raise UsageError("no checkpoints are saved, so there is nothing to average", hint='save_strategy="epoch"')
        target = self._target(args)
        if os.path.lexists(target) and not self._options.overwrite:
            raise SoupError("the soup's folder exists already", where=str(target), hint="overwrite=True, or output=…")
        if self._options.figures:
            require_matplotlib()
        if self._options.push and state.is_world_process_zero:
            require_push_access(self._options.push, create_pr=self._options.create_pr)
        # A run that resumes from a checkpoint owns those before it too; later ones in the folder are of another run.
        self._steps = {step for step in _find_steps(args) if step <= state.global_step}

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Remember which checkpoints are this run's."""
        self._steps.add(state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        """Bake, write, push."""
        patterns = tuple(_checkpoint_folder(args, step) for step in sorted(self._steps & _find_steps(args)))
        options = replace(self._options, output=str(self._target(args)))
        try:
            if not one_is_enough(options):
                _require_checkpoints(patterns, args)
            if self._trainer is not None:
                self.soup = _bake_with_trainer(patterns, options, self._trainer)
            elif state.is_world_process_zero:
                self.soup = run_bake(patterns, options, Watch())
        except SoupError as error:
            if state.is_world_process_zero:
                warnings.warn(f"training has finished, but no soup was baked\n{error}", stacklevel=2)
        quiet = args.log_level in ("warning", "error", "critical") or not state.is_world_process_zero
        if self.soup is not None and not quiet:
            LOG.info(_describe_soup(self.soup))

    def _target(self, args: TrainingArguments) -> Path:
        return Path(self._options.output or Path(str(args.output_dir), "soup"))


def _require_checkpoints(patterns: Sequence[str], args: TrainingArguments) -> None:
    """Refuse a run that saved fewer than two checkpoints, or kept fewer.

    Raises:
        UsageError: there are fewer than two; the hint names the Trainer's arguments that save more.
    """
    if len(patterns) > 1:
        return
    kept = args.save_total_limit is not None and args.save_total_limit < 2
    saved = f"save_strategy={SaveStrategy(args.save_strategy).value!r}" + (
        f", save_steps={args.save_steps:g}" if args.save_strategy == "steps" else ""
    )
    what = f"expected two checkpoints or more of this run, found {len(patterns) or 'none'}"
    where = f"{args.output_dir}, with {saved}, save_total_limit={args.save_total_limit}"
    hint = 'TrainingArguments(…, save_strategy="epoch"' + (", save_total_limit=None)" if kept else ")")
    raise UsageError(what, where=where, hint=f"{hint}, and two epochs or more")


def _describe_soup(soup: Soup) -> str:
    """Where the soup is, and whether it scores higher than the best checkpoint on the Trainer's evaluation set."""
    used, count = len(soup.mix.members), format_count(len(soup.family.ingredients), "checkpoint")
    text = f"baked a soup of {used} of {count} in {soup.path}"
    if soup.selection is None or soup.best is None:
        return f"{text}; it was not scored"
    best, metric = soup.scores[soup.best], name_metric(soup.metric)
    verdict = "no better than" if best and soup.selection.value <= best.value else "better than"
    scores = [format_score(soup.metric, score) for score in (soup.selection, best)]
    return f"{text}: {metric} {scores[0]}, {verdict} the best checkpoint's {scores[1]} on the evaluation set"


def _suggest_bake(recipe: str) -> str:
    return f"hfsoup bake OUTPUT_DIR/checkpoint-* --recipe {recipe} --dataset …, after training"


def _checkpoint_folder(args: TrainingArguments, step: int) -> str:
    return str(Path(str(args.output_dir), f"checkpoint-{step}").absolute())


def _find_steps(args: TrainingArguments) -> set[int]:
    """The steps with a checkpoint in the output folder."""
    names = [path.name.removeprefix("checkpoint-") for path in Path(str(args.output_dir)).glob("checkpoint-*")]
    return {int(name) for name in names if name.isdecimal()}


def _require_scoring(trainer: Trainer) -> None:
    if trainer.eval_dataset is None or isinstance(trainer.eval_dataset, dict):
        raise UsageError("the Trainer needs one evaluation set to score on", hint="Trainer(…, eval_dataset=…)")
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise UsageError(
            "a sharded model (FSDP, DeepSpeed) cannot load other weights for scoring", hint='SoupCallback("latest")'
        )


def _bake_with_trainer(patterns: Sequence[str], options: Options, trainer: Trainer) -> Soup | None:
    """Search with the Trainer's own evaluation; all processes evaluate, the main one writes."""
    clock, watch, model = Clock(), Watch(), trainer.accelerator.unwrap_model(trainer.model)
    options = replace(options, metric="".join(_read_metric(trainer)))
    family = gather_family(tuple(patterns), options, watch, clock)
    kept, training = {name: t.detach().clone() for name, t in model.state_dict().items()}, model.training
    try:
        averaged = Averager(family, options.merge, options.stored_dtype, options.merge_parameters())
        with clock("evaluate"), averaged as averager:
            search, mix = run_recipe(family, options, watch, lambda mix, _: _score_mix(trainer, model, averager, mix))
            selection, best = search.score(mix), search.ranked[0]
    finally:
        model.load_state_dict(kept)
        model.train(training)
    scores = tuple(search.scores.get(search.mix((i,))) for i in range(len(family)))
    soup = Soup(
        tuple(patterns),
        options,
        Composition(family, mix),
        SearchResult(scores, best, tuple(search.trace), selection=selection),
        run=Run(sum(score.total for score in search.scores.values()), seconds=clock.seconds),
    )
    return save_and_push(soup, watch, clock) if trainer.is_world_process_zero() else None


def _read_metric(trainer: Trainer) -> tuple[str, str]:
    """`NEGATED` if a lower value of the Trainer's metric is better, and the metric's name in the Trainer's reports."""
    name = (trainer.args.metric_for_best_model or "loss").removeprefix("eval_")
    more = trainer.args.greater_is_better
    return "" if (not name.endswith("loss") if more is None else more) else NEGATED, f"eval_{name}"


def _score_mix(trainer: Trainer, model: Any, averager: Averager, mix: Mix) -> Score:
    """The Trainer's metric of a mix on its evaluation set."""
    with tempfile.TemporaryDirectory() as scratch:
        write_weights(averager, mix, Path(scratch), {})
        write_configs(averager.family, Path(scratch), averager.dtype)
        with hide_loading_bars():
            # Tensors may have other names in a file than in the model; transformers converts them.
            fresh = type(model).from_pretrained(scratch, local_files_only=True, dtype="auto")
    model.load_state_dict(fresh.state_dict())
    images: Any = trainer.eval_dataset
    found, (sign, name) = trainer.predict(images, metric_key_prefix="eval"), _read_metric(trainer)
    value = (found.metrics or {}).get(name)
    if not isinstance(value, (int, float)) or not isfinite(value):
        known = ", ".join(sorted(found.metrics or ()))
        what = f"expected the Trainer to report a number as {name}, found {value}; it reports {known}"
        raise SoupError(what, hint="metric_for_best_model=…")
    return Score(-float(value) if sign else float(value), 0 if found.label_ids is None else len(found.label_ids))
