"""A round of fuzzing: damaged bytes and text into every decoder, parser and opener, by seed.

    python -m fuzz --seconds 20 --seed 1                  all targets
    python -m fuzz --target page --seconds 60             one of them
    python -m fuzz --target page --guided --seconds 60    the same by coverage, with atheris
    python -m fuzz --target page --input 'b85 text'       one input again

Each input must be answered with a value or with an error of PEP 249, within a second; anything
else is a finding, printed with its input, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import base64
import sys

from fuzz.guided import guided, is_available
from fuzz.runner import Watch, feed, fuzz
from fuzz.targets import TARGETS

SHOWN = 10  # findings of a target that are printed; all are counted


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), help="one target alone")
    parser.add_argument("--input", help="feed one input, in base 85")
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    options = parser.parse_args()
    if options.input is not None:
        with Watch().on():
            feed(TARGETS[options.target], base64.b85decode(options.input))
        return 0
    chosen = [TARGETS[options.target]] if options.target else list(TARGETS.values())
    if options.guided and is_available():
        for target in chosen:
            count = guided(target.name, options.seed, options.seconds / len(chosen))
            print(f"{target.name:10} {count:11,} inputs by coverage, 0 findings")
        return 0
    total = 0
    found = fuzz(chosen, options.seed, options.seconds, stop=False)
    for name, (count, findings) in found.items():
        print(f"{name:10} {count:11,} inputs, {len(findings)} findings")
        for finding in findings[:SHOWN]:
            print(finding)
        total += len(findings)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
