"""Runs the verifier over a folder of test vectors and compares verdict and rule."""

import argparse
import sys
import traceback
from collections import Counter
from pathlib import Path

from .vectors import Vector, judge, judge_without, read_vector


def main() -> int:
    """0 when every vector agrees and there are some."""
    parser = argparse.ArgumentParser(prog="spec/reference/run", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the vectors are")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--flip", action="store_true", help="expect the opposite of each vector; every one must then fail"
    )
    mode.add_argument(
        "--without", action="store_true", help="leave out the rule that refuses, too, where that alone should accept"
    )
    arguments = parser.parse_args()

    count: Counter[str] = Counter()
    for path in sorted(arguments.folder.rglob("*.json")):
        name = path.relative_to(arguments.folder)
        try:
            vector = read_vector(path)
            outcome, mismatch = _compare(vector, arguments.flip)
            if arguments.without and outcome == "passed":
                outcome, mismatch = _compare_without(vector)
        except Exception:  # noqa: BLE001  a vector that cannot be read or judged fails, and the others still run
            outcome, mismatch = "broken", f"no verdict\n{traceback.format_exc()}"
        count[outcome] += 1
        if (outcome == "passed") == arguments.flip or outcome == "broken":
            print(f"{name}: {mismatch}")
    total = count.total()
    if total == 0:
        print(f"no vectors in {arguments.folder}", file=sys.stderr)
    if arguments.flip:
        print(f"{count['failed']} of {total} flipped vectors failed")
        return 0 if count["failed"] == total > 0 else 1
    if count["unable"]:
        print(f"{count['unable']} cannot be judged without their rule")
    print(f"{count['passed'] + count['unable']} passed, {count['failed'] + count['broken']} failed")
    return 0 if count["passed"] + count["unable"] == total > 0 else 1


def _compare(vector: Vector, flip: bool) -> tuple[str, str]:
    expected = vector.verdict.flipped() if flip else vector.verdict
    got = judge(vector.presentation)
    return "passed" if got == expected else "failed", f"expected {expected}, got {got}"


# What comes after these this verifier does not have: readers of other spellings, a root key of no id, and operators and
# words that are not admitted. Without R-25 an error allows everything in the vectors, here it only passes its check.
_NOTHING_AFTER = frozenset(("P-02", "P-03", "P-16", "P-17", "R-25", "R-27"))


def _compare_without(vector: Vector) -> tuple[str, str]:
    """Whether the rule is the only one that the vector breaks, where it says so."""
    if vector.verdict.rule is None or vector.otherwise != "accepted":
        return "passed", ""
    got = judge_without(vector.verdict.rule, vector.presentation)
    if got is None or (got.rule is not None and vector.verdict.rule in _NOTHING_AFTER):
        return "unable", f"this verifier cannot go on without {vector.verdict.rule}"
    message = f"without {vector.verdict.rule} expected {vector.otherwise}, got {got}"
    return "passed" if got.rule is None else "failed", message


if __name__ == "__main__":
    sys.exit(main())
