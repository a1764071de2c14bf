"""No source file may grow past what one can read in one go."""

import sys
from pathlib import Path

MAX_LINES = 450


def main() -> int:
    sizes = {path: len(path.read_text().splitlines()) for path in sorted(Path("asyncproc").rglob("*.py"))}
    too_long = {path: lines for path, lines in sizes.items() if lines > MAX_LINES}
    for path, lines in too_long.items():
        print(f"{path}: {lines} lines, at most {MAX_LINES} are allowed: split it")
    print(f"file sizes: {len(sizes)} files, the longest has {max(sizes.values())} lines")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
