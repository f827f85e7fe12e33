"""Bake a soup of fine-tuned image classifiers and use it.

python scripts/examples/bake_from_python.py "org/vit-*" --dataset org/pets --output pets-soup
"""

from __future__ import annotations

import argparse

import hfsoup

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ingredients", nargs="+", help="names or globs on the Hub, or local folders")
parser.add_argument("--dataset", required=True, help="a dataset with a validation and a test split")
parser.add_argument("--output", required=True, help="the folder to write")
given = parser.parse_args()

# The recipe selects on the validation split; the test split is used once, at the end.
soup = hfsoup.bake(*given.ingredients, recipe="greedy", dataset=given.dataset)
print(soup)

for ingredient, weight in zip(soup.family.ingredients, soup.mix.coefficients, strict=True):
    print(f"{weight:.2f}  {ingredient}")

# A complete model folder: weights, config, image processor, model card and soup.json.
soup = soup.save(given.output)
classify = soup.pipeline()
print(f"{given.output} predicts {len(classify.model.config.id2label)} classes")
