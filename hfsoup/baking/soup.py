"""A baked soup and what can be done with it: save, push, predict."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hfsoup.provenance.result import BakeResult
from hfsoup.utils.errors import SoupError


@dataclass(frozen=True, repr=False)
class Soup(BakeResult):
    """The result of a bake: a record of what was made and measured, with the verbs to save, push and use it.

    Example:
        >>> import hfsoup
        >>> from PIL import Image
        >>> soup = hfsoup.bake("org/model-*", recipe="uniform").save("pets-soup")
        >>> sorted(path.name for path in soup.path.iterdir())
        ['README.md', 'config.json', 'model.safetensors', 'preprocessor_config.json', 'soup.json']
        >>> classify = soup.pipeline()
        >>> classify(Image.new("RGB", (16, 16)), top_k=1)
        [{'label': '...', 'score': ...}]
        >>> soup.push_to_hub("org/pets-soup").pushed.url
        'http...//.../org/pets-soup'
    """

    def __repr__(self) -> str:
        from hfsoup.reports.notebook import format_text

        return format_text(self)

    def _repr_html_(self) -> str:
        from hfsoup.reports.notebook import format_html

        return format_html(self)

    def to_json(self) -> dict[str, Any]:
        """The result as plain values, as `--json` writes it."""
        from hfsoup.reports.json_output import make_json

        return make_json(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Soup:
        """Write the complete model folder; the soup with its path and hashes.

        A folder that holds this very soup, byte for byte, is taken as it is.

        Args:
            folder: where to; it must not exist yet, unless `overwrite`.
            overwrite: replace what is there, by a rename.
        """
        from hfsoup.averaging.averager import Averager
        from hfsoup.averaging.writer import stage_output, write_adapter, write_configs, write_weights
        from hfsoup.baking.evidence import write_evidence
        from hfsoup.networks.distillation.result import append_member
        from hfsoup.provenance.manifest import FILE_NAME, make_manifest
        from hfsoup.reports.card.render import render_card
        from hfsoup.utils.hashing import hash_file

        target, dtype = Path(folder).expanduser(), self.options.stored_dtype
        if (hashes := self._find_saved(target)) is not None:
            return replace(self, location=replace(self.location, path=target, hashes=hashes))
        made_of = self.composition
        family, mix, statistics = made_of.family, made_of.mix, made_of.statistics
        if made_of.distilled:
            family, mix, statistics = *append_member(family, made_of.distilled.ingredient), {}
        averaged = Averager(family, self.options.merge, dtype, self.options.merge_parameters())
        with stage_output(target, overwrite=overwrite) as stage, averaged as averager:
            if made_of.adapter:
                hashes = write_adapter(made_of.adapter, stage)
            else:
                hashes = write_weights(averager, mix, stage, statistics)
            write_configs(self.family, stage, dtype)
            write_evidence(self, stage)
            (stage / "README.md").write_text(render_card(self), encoding="utf-8")
            paths = {path.relative_to(stage).as_posix(): path for path in sorted(stage.rglob("*")) if path.is_file()}
            files = {name: hashes.get(name) or hash_file(path) for name, path in paths.items()}
            (stage / FILE_NAME).write_text(make_manifest(self, files).text(), encoding="utf-8")
        return replace(self, location=replace(self.location, path=target, hashes=hashes))

    def _find_saved(self, folder: Path) -> dict[str, str] | None:
        """The hashes of the weight files in `folder` if it holds this very soup already."""
        from hfsoup.provenance.manifest import FILE_NAME, make_manifest, read_manifest
        from hfsoup.utils.hashing import hash_file

        if not (folder / FILE_NAME).is_file():
            return None
        try:
            files = read_manifest(folder, where=str(folder)).files
        except SoupError:
            return None
        same = (folder / FILE_NAME).read_text(encoding="utf-8") == make_manifest(self, files).text()
        if not same or any(not (folder / n).is_file() or hash_file(folder / n) != h for n, h in files.items()):
            return None
        return {name: sha for name, sha in files.items() if name.endswith(".safetensors")}

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        create_pr: bool = False,
        revision: str | None = None,
        collection: bool = False,
    ) -> Soup:
        """Push to the Hub in one commit, with `collection` also make a Collection; the soup with where it went."""
        from hfsoup.baking.push import push_folder

        if self.path is None:
            # Kept where the push fails: the error names the command that continues from it.
            folder = Path(tempfile.mkdtemp(prefix="hfsoup-"))
            saved = self.save(folder / "soup")
            there = saved.push_to_hub(
                repo, private=private, create_pr=create_pr, revision=revision, collection=collection
            )
            shutil.rmtree(folder)
            return replace(there, location=replace(there.location, path=None))
        pushed = push_folder(
            self.path, repo, private=private, create_pr=create_pr, revision=revision, collection=collection
        )
        return replace(self, location=replace(self.location, pushed=pushed))

    def pipeline(self, **options: Any) -> Any:
        """A transformers image-classification pipeline on this soup; `options` go to `transformers.pipeline`."""
        from transformers import pipeline

        task: Any = self.task.auto_class.pipeline_tag
        if (adapter := self.composition.adapter) is not None:
            return pipeline(task, model=str(adapter.ingredient.folder), **options)
        if self.path is not None:
            return pipeline(task, model=str(self.path), **options)
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder) / "soup")
            return pipeline(task, model=str(Path(folder) / "soup"), **options)
