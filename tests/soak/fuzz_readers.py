"""Coverage-guided fuzzing of the readers: `python tests/soak/fuzz_readers.py --seconds 60`.

Needs atheris. Each reader gets its share of the time in a process of its own; a finding ends with its input and code 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TARGETS = ("weights", "header", "config", "index")


def fuzz(target: str, seconds: int) -> None:
    """Fuzz one reader in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["hfsoup"]):
        import fuzzing
    from test_fuzz_readers import CONFIG, GOOD, INDEX

    good = {"weights": GOOD, "header": GOOD, "config": CONFIG, "index": INDEX}[target]
    text = json.dumps(good).encode()
    reads = {
        "weights": fuzzing.weights,
        "header": lambda data: fuzzing.weights(fuzzing.headed(data, bytes(18))),
        "config": fuzzing.config,
        "index": fuzzing.index,
    }
    corpus = Path(tempfile.mkdtemp(prefix="hfsoup-corpus-", dir=fuzzing.FOLDER))
    (corpus / "good").write_bytes(fuzzing.headed(text, bytes(18)) if target == "weights" else text)
    words = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-seed=1"]
    quiet = ["-verbosity=0", "-print_final_stats=1", f"-artifact_prefix={fuzzing.FOLDER}/"]
    atheris.Setup([*words, *quiet], lambda data: reads[target](data) and None)
    atheris.Fuzz()


def main() -> int:
    """Fuzz all readers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all of them together")
    parser.add_argument("--target", choices=TARGETS, help="only this one, in this process")
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if asked.target:
        fuzz(asked.target, asked.seconds)
    worst = 0
    for target in TARGETS:
        share = max(asked.seconds // len(TARGETS), 1)
        words = [sys.executable, __file__, "--target", target, "--seconds", str(share)]
        done = subprocess.run(words, stderr=subprocess.PIPE, text=True)
        runs = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        print(
            f"{target}: {runs[0].split()[-1] if runs else 'no'} inputs, {'fine' if done.returncode == 0 else 'FOUND'}"
        )
        if done.returncode:
            print(done.stderr[-4000:], file=sys.stderr)
            worst = 1
    return worst


if __name__ == "__main__":
    sys.exit(main())
