"""Puts the pins read from standard input between the markers of pyproject.toml; `--clear` empties them."""

import sys
from pathlib import Path

BEGIN, END = "# pins: begin\n", "# pins: end\n"


def main() -> None:
    pins = [] if "--clear" in sys.argv else sorted(line.strip() for line in sys.stdin if "==" in line)
    body = "".join(f"    {quoted(pin)},\n" for pin in pins)
    path = Path("pyproject.toml")
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = f"[tool.uv]\nconstraint-dependencies = [\n{body}]\n" if pins else ""
    path.write_text(before + BEGIN + table + END + after)


def quoted(pin: str) -> str:
    return "'" + pin.replace(" ; ", "; ") + "'" if '"' in pin else f'"{pin.replace(" ; ", "; ")}"'


main()
