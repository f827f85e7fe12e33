"""Distil networks with different initialisations into one, which matches their mean logits on unlabelled images.

    python scripts/examples/distill_resnet20.py CIFAR100_FOLDER CHECKPOINT.th CHECKPOINT.th ... --epochs 6

The folder is a dataset with the splits train, validation and test. The network trains on the images of train and
validation without their labels, from the checkpoint with the best validation accuracy; the test split only reports. The
checkpoints are as for `align_resnet20.py`.
"""

from __future__ import annotations

import argparse

import torch
from accelerate import Accelerator
from align_resnet20 import ResNet, State, images, shaped_like
from datasets import load_dataset

import hfsoup
from hfsoup.evaluation.intervals import mcnemar_test
from hfsoup.networks.distillation.result import count_forwarded
from hfsoup.state_dicts.load import load_ingredients


@torch.no_grad()
def logits(model: ResNet, state: State, pixels: torch.Tensor) -> torch.Tensor:
    """Images x classes."""
    model.load_state_dict(state)
    return torch.cat([model(batch) for batch in torch.split(pixels, 125)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset")
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="distilled.th")
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16 where that is safe")
    parser.add_argument("--swap", action="store_true", help="exchange validation and test")
    given = parser.parse_args()
    splits = load_dataset(given.dataset)
    selection, test = ("test", "validation") if given.swap else ("validation", "test")
    selecting, reporting = images(splits[selection]), images(splits[test])
    chosen, labels = (torch.tensor(splits[name]["label"][:]) for name in (selection, test))
    states = [dict(state) for state in load_ingredients(given.checkpoints, unwrap=True)[1]]
    model = shaped_like(states[0])

    def report(name: str, found: torch.Tensor) -> torch.Tensor:
        hits = found.argmax(1) == labels
        print(f"{name}: {100 * float(hits.double().mean()):.2f}", flush=True)
        return hits

    on_selection = [int((logits(model, state, selecting).argmax(1) == chosen).sum()) for state in states]
    start = max(range(len(states)), key=on_selection.__getitem__)
    answers = [logits(model, state, reporting) for state in states]
    alone = [report(path, found) for path, found in zip(given.checkpoints, answers, strict=True)]
    report("ensemble", torch.stack(answers).mean(0))
    unlabelled = torch.cat([images(splits["train"]), selecting])
    accelerator = Accelerator(mixed_precision="bf16" if given.bf16 else "no", cpu=True)
    done, every = 0, count_forwarded(len(unlabelled), given.epochs, len(states))

    def advance(count: int) -> None:
        nonlocal done
        if (done + count) * 20 // every > done * 20 // every:
            print(f"trained: {100 * (done + count) // every} %", flush=True)
        done += count

    state = hfsoup.distill(
        states, model=model, images=unlabelled, epochs=given.epochs, start=states[start], seed=given.seed,
        accelerator=accelerator, advance=advance,
    )  # fmt: skip
    torch.save({"state_dict": state}, given.output)
    found = report("distilled", logits(model, state, reporting))
    best = max(alone, key=lambda hits: int(hits.sum()))
    for name, other in (("start", alone[start]), ("best on these images", best)):
        gain, loss = int((found & ~other).sum()), int((other & ~found).sum())
        p = mcnemar_test(only_first=gain, only_second=loss)
        print(f"against {name}: right where it is wrong {gain}, the reverse {loss}, p = {p:.2g}")


if __name__ == "__main__":
    main()
