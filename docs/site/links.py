"""Make the links of pages that leave the documentation absolute: links.py FOLDER REPOSITORY.

They lead to the repository, because the site has the documentation alone.
"""

import re
import sys
from pathlib import Path

_UPWARD = re.compile(r"\]\(((?:\.\./)+)([^)\s]*)\)")


def absolute(text: str, repository: str, *, depth: int) -> str:
    """Return a page's text with absolute links to what lies outside the folder.

    Args:
        text: the page.
        repository: URL of the repository.
        depth: folders between the page and the documentation's root.
    """

    def replaced(match: re.Match[str]) -> str:
        leaves = match[1].count("../") > depth
        return f"]({repository}/blob/main/{match[2]})" if leaves else match[0]

    return _UPWARD.sub(replaced, text)


if __name__ == "__main__":
    root, repository = Path(sys.argv[1]), sys.argv[2]
    for page in root.rglob("*.md"):
        depth = len(page.relative_to(root).parts) - 1
        text = page.read_text(encoding="utf-8")
        page.write_text(absolute(text, repository, depth=depth), encoding="utf-8")
