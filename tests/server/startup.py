"""Module that each interpreter of the service imports first, to change constants of the service."""

from collections.abc import Mapping
from pathlib import Path

_REDEFINE = """
import sys
from importlib.machinery import PathFinder

# The log library imports it where it is installed, as no installed service has it: 50 ms of CPU.
sys.modules["rich"] = None


class Redefine(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in DEFINITIONS:
            return None
        spec = super().find_spec(name, path, target)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            exec(DEFINITIONS[name], vars(module))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Redefine)
"""
"""Import hook that ends a module with the definitions given for it, before others import it."""


def write_startup(folder: Path, definitions: Mapping[str, str], code: str = "") -> Path:
    """Write the module, and return its folder, which belongs into ``PYTHONPATH``.

    Args:
        folder: a folder for it alone.
        definitions: ``CONSTANT = value`` by module, for constants that are no settings.
        code: what to run besides.
    """
    folder.mkdir(exist_ok=True)
    startup = f"DEFINITIONS = {dict(definitions)!r}\n{_REDEFINE}\n{code}"
    (folder / "sitecustomize.py").write_text(startup)
    return folder
