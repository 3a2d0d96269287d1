"""Docstrings of this project for the site: Args, Returns, ... each begin a paragraph instead of running on."""

import re

import griffe

SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Args, Raises): ", re.MULTILINE)


class Sections(griffe.Extension):
    """Turns a line "Args: x, ..." of a docstring into a paragraph that begins with the section's name in bold."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrites an object's docstring when it has been read."""
        if obj.docstring:
            obj.docstring.value = SECTION.sub(r"\n**\1:** ", obj.docstring.value)
