"""Runs the verifier over a folder of test vectors and compares verdict and rule."""

import argparse
import sys
import traceback
from pathlib import Path

from .vectors import Verdict, judge, read_vector


def main() -> int:
    """0 when every vector agrees and there are some."""
    parser = argparse.ArgumentParser(prog="spec/reference/run", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the vectors are")
    parser.add_argument("--flip", action="store_true", help="expect the opposite of each vector; every one must then fail")
    arguments = parser.parse_args()

    passed = failed = 0
    for path in sorted(arguments.folder.rglob("*.json")):
        name = path.relative_to(arguments.folder)
        try:
            vector = read_vector(path)
            expected = vector.verdict.flipped() if arguments.flip else vector.verdict
            got: Verdict | str = judge(vector.presentation)
        except Exception:  # a vector that cannot be read or judged fails, and the others still run
            print(f"{name}: no verdict\n{traceback.format_exc()}")
            failed += not arguments.flip
            passed += arguments.flip
            continue
        if got == expected:
            passed += 1
        else:
            failed += 1
        if (got == expected) == arguments.flip:
            print(f"{name}: expected {expected}, got {got}")
    if passed + failed == 0:
        print(f"no vectors in {arguments.folder}", file=sys.stderr)
    if arguments.flip:
        print(f"{failed} of {passed + failed} flipped vectors failed")
    else:
        print(f"{passed} passed, {failed} failed")
    wrong = passed if arguments.flip else failed
    return 1 if wrong or passed + failed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
