"""Pages from templates: everything a page needs is in it, so it opens from a folder without a network."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page; whatever the template names and the context lacks is an error."""
    templates = resources.files("reports") / "templates"
    loader = jinja2.FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(context)
