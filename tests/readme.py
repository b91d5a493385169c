"""README.md is nbs/index.ipynb as Markdown.

python -m tests.readme            print it
python -m tests.readme --write    write README.md
"""

import sys
from pathlib import Path

from tests import environment

ROOT = environment.ROOT


def rendered(index: Path) -> str:
    "The README that `index` makes: text outputs only, and links that hold from the top folder."
    import nbformat
    from nbconvert.exporters import MarkdownExporter

    exporter = MarkdownExporter(
        # a table's HTML is for Jupyter; in a README its text is what can be read
        config={"NbConvertBase": {"display_data_priority": ["text/plain"]}}
    )
    notebook = nbformat.read(index, as_version=4)
    notebook.metadata["language_info"] = {"name": "python"}  # cleaned away in the file; it colours the code
    body, _ = exporter.from_notebook_node(notebook)
    body = body.replace("](images/", "](nbs/images/").replace("](../", "](")
    lines = [line.rstrip() for line in body.strip().splitlines()]
    kept = [line for before, line in zip(["", *lines], lines, strict=False) if line or before]
    return "\n".join(kept) + "\n"


def main() -> None:
    text = rendered(ROOT / "nbs" / "index.ipynb")
    if "--write" in sys.argv:
        (ROOT / "README.md").write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
