#!/usr/bin/env python3
"""Fails where a module includes one that it must not know.

cli -> http -> {runtime, index} -> ops -> {redis, model} -> base: an include may point to the right, never left or
sideways. Applications may include public headers only.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAY_USE = {
    "base": {"base"},
    "redis": {"base", "redis"},
    "model": {"base", "model"},
    "ops": {"base", "redis", "model", "ops"},
    "runtime": {"base", "redis", "model", "ops", "runtime"},
    "index": {"base", "redis", "model", "ops", "index"},
    "http": {"base", "redis", "model", "ops", "runtime", "index", "http"},
    "cli": {"base", "redis", "model", "ops", "runtime", "index", "http", "cli"},
}
INCLUDE = re.compile(r'^\s*#include\s+["<]([a-z_]+)/')
# The headers that a stranger's compiler would have to digest, and so must stay behind ours.
HEAVY = re.compile(r'^\s*#include\s+<(boost/asio\.hpp|boost/beast|hiredis|spdlog|CLI/|openssl|sqlite3)')


def main() -> int:
    errors = []
    for module, allowed in MAY_USE.items():
        for path in sorted((ROOT / "src" / module).glob("*.[ch]pp")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if match and match[1] in MAY_USE and match[1] not in allowed:
                    errors.append(f"{path.relative_to(ROOT)}:{number}: {module} must not include {match[1]}")
    for path in sorted((ROOT / "apps").rglob("*.[ch]pp")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if match and match[1] in MAY_USE:
                errors.append(f"{path.relative_to(ROOT)}:{number}: an application uses public headers only")
    for path in sorted((ROOT / "include").rglob("*.hpp")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if HEAVY.match(line):
                errors.append(f"{path.relative_to(ROOT)}:{number}: too heavy for a public header")
    print("\n".join(errors) if errors else "layers: clean")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
