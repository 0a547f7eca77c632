"""The convention that every kind of plugin follows."""

from __future__ import annotations

from typing import Any, ClassVar

from envgym.config import Section, validate_settings

__all__ = ["Plugin"]


class Plugin:
    """Base of environments, sandbox backends, policies, tool formats, engines, objectives, clusters and stages.

    A plugin nests its settings as ``Config`` and is made from them by keyword::

        class Clipped(Objective):
            class Config(Objective.Config):
                clip: float = 0.2

            config: Config

        Clipped(clip=0.3).config.clip

    A kind may take further keywords of its own, such as an environment's ``split``; the caller passes them, and
    they are never settings.

    Args:
        settings: fields of ``Config``.

    Raises:
        RecipeError: an unknown setting or a wrong value; the message names what is allowed.
    """

    contract: ClassVar[int] = 1
    """Version of the kind's interface that the class was written for; checked when the plugin is loaded."""

    class Config(Section):
        """Settings of the plugin; a plugin that defines no ``Config`` has none."""

    config: Config

    def __init__(self, **settings: Any) -> None:
        self.config = validate_settings(type(self).Config, settings, type(self).__name__)
