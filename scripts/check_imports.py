#!/usr/bin/env python3
"""Holds the order of modules that docs/src/architecture.md gives against the code.

A block of that page names a folder of sources, and its modules from the top down:

    <!-- modules: host-builder/src -->
    | module | what |
    | --- | --- |
    | `commands` | … |
    | `server` | … |
    <!-- end -->

A module imports only from those that stand below it, so no two import each other. Beneath the
top, no file imports itself through others either; what a file's own submodules import of it is
no import in this sense. Tests may import what they like.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/src/architecture.md"
BLOCK = re.compile(r"<!-- modules: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
TESTS = re.compile(r"^#\[cfg\(test\)\]\s*(?:#\[[^\n]*\]\s*)*(?:pub(?:\([^)]*\))? )?(mod \w+ \{|impl\b[^\n]*\{|use [^;]*;|(?:async )?fn\b[^\n]*\{)", re.MULTILINE)
USE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use ((?:crate|super|self)\b[^;]*);", re.MULTILINE)
# Entry points, which import everything.
TOP = {"main", "lib"}


def split_list(text):
    """The parts of `a, b::{c, d}`."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [part for part in [*parts, part] if part.strip()]


def paths_of(tree, before=()):
    """Every path of a `use` tree, as tuples of names."""
    head, brace, rest = tree.strip().partition("{")
    names = (*before, *(name.split(" as ")[0].strip() for name in head.split("::") if name.strip()))
    if not brace:
        return [names]
    return [path for part in split_list(rest[: rest.rindex("}")]) for path in paths_of(part, names)]


def without_tests(source):
    """The source without comments, strings and what only tests compile."""
    source = re.sub(r"//[^\n]*", "", source)
    while found := TESTS.search(source):
        end = found.end()
        if source[end - 1] == "{":
            depth = 1
            while depth and end < len(source):
                depth += (source[end] == "{") - (source[end] == "}")
                end += 1
        source = source[: found.start()] + source[end:]
    return source


def module_of(file):
    """The module's path of a file, relative to the sources."""
    names = file.with_suffix("").parts
    return names[:-1] if names[-1] == "mod" else names


def imports(folder):
    """From each module to those that it imports, tests left out."""
    files = {module_of(path.relative_to(folder)): path for path in folder.rglob("*.rs")}
    files = {
        module: path
        for module, path in files.items()
        if not {"tests", "fake", "contract"} & set(module) and module[-1] not in TOP
    }
    found = {}
    for module, path in files.items():
        source = without_tests(path.read_text())
        used = [path for tree in USE.findall(source) for path in paths_of(tree)]
        body = USE.sub("", source)
        used += [tuple(name.split("::")) for name in re.findall(r"\b(?:crate|super)(?:::\w+)+", body)]
        for names in used:
            target = () if names[0] == "crate" else module
            for name in names:
                if name == "super":
                    target = target[:-1]
                elif name not in ("crate", "self"):
                    target = (*target, name)
            while target and target not in files:
                target = target[:-1]
            # A submodule may use what its parent has imported.
            is_own = target == module[: len(target)] or module == target[: len(module)]
            if target and not is_own:
                found.setdefault(module, set()).add(target)
    return found


def circle(graph):
    """The modules of a circle; none when there is none."""
    done, on_way = set(), []

    def visit(node):
        if node in on_way:
            return on_way[on_way.index(node) :]
        if node in done:
            return None
        on_way.append(node)
        for other in sorted(graph.get(node, ())):
            if found := visit(other):
                return found
        on_way.pop()
        done.add(node)
        return None

    return next(filter(None, map(visit, sorted(graph))), None)


def wrong(folder, order):
    """What is wrong with the imports of a folder whose modules the page gives in this order."""
    graph = imports(folder)
    modules = {module_of(path.relative_to(folder))[0] for path in folder.rglob("*.rs")} - TOP
    modules -= {name for name in modules if re.search(rf"#\[cfg\(test\)\]\s*mod {name};", (folder / "lib.rs").read_text())}
    for name in sorted(modules - set(order)):
        yield f"{name} is missing: give it a row"
    for name in sorted(set(order) - modules):
        yield f"{name} has a row and no file: remove the row"
    for module, targets in sorted(graph.items()):
        for target in sorted(targets):
            pair = (module[0], target[0])
            if pair[0] != pair[1] and set(pair) <= set(order) and order.index(pair[0]) > order.index(pair[1]):
                yield f"{'::'.join(module)} imports {'::'.join(target)}, which stands above it: move what it needs down"
    if found := circle(graph):
        yield "a circle: " + " → ".join("::".join(module) for module in [*found, found[0]])


def main():
    blocks = BLOCK.findall(PAGE.read_text())
    complaints = [
        f"{folder}: {complaint}"
        for folder, rows in blocks
        for complaint in wrong(ROOT / folder, ROW.findall(rows))
    ]
    if not blocks:
        complaints = [f"{PAGE.relative_to(ROOT)} has no list of modules"]
    for complaint in complaints:
        print(f"check_imports: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
