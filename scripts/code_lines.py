"""Lines of code per package: `python scripts/code_lines.py [FOLDER]`. Docstrings and comments do not count."""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(text: str) -> int:
    """How many lines of a source file hold code."""
    docs: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for part in body if isinstance(body, list) else []:
            if (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            ):
                docs.update(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docs)


def main() -> None:
    """Print a line a package."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src/ieadapt")
    files: Counter[str] = Counter()
    code: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).parts
        package = inside[0] if len(inside) > 1 else "."
        files[package] += 1
        code[package] += code_lines(path.read_text())
    for package in sorted(files, key=lambda name: -code[name]):
        print(f"{package:16} {files[package]:4} files {code[package]:6} lines of code")
    print(f"{'all':16} {files.total():4} files {code.total():6} lines of code")


if __name__ == "__main__":
    main()
