"""What a tool must answer so that curves can be made of it: how long the steps of an engine take.

Nothing here knows a particular tool. `AiConfigurator` is the one implementation; another tool takes its place by
answering the same three questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from scepsy.documents import Architecture
from scepsy.profiling.estimating.products import Product


class Load(NamedTuple):
    """What an engine works on in its steady state.

    Attributes:
        input: prompt tokens of each call, none of them cached.
        output: tokens that each call generates.
        batch: calls that run.
        prompts: prompts that join in one step.
    """

    input: int
    output: int
    batch: int
    prompts: int


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps in which every call of a batch is served once.

    Attributes:
        mixed: seconds of a step that computes the joining prompts beside the decodes of the other calls.
        mixed_steps: how many of them there are.
        decode: seconds of a step in which all calls decode; 0 for calls of one token.
        decode_steps: how many of them there are; 0 where prompts join in every step.
        fits: whether the batch fits into the memory that the engine may use.
    """

    mixed: float
    mixed_steps: float
    decode: float
    decode_steps: float
    fits: bool


Ask = Callable[[Load], Steps]
"""Asks a tool about one instance: a load → its steps."""


class Estimator(Protocol):
    """A tool that estimates the steps of an engine without running it."""

    @property
    def tool(self) -> str:
        """Its name and version, as profiles record them."""

    def models(self) -> list[str]:
        """Return the models that it knows, sorted."""

    def architecture(self, model: str) -> Architecture:
        """Return the shape of a model.

        Raises:
            ScepsyError: the tool does not know the model, or its numbers for such models cannot be trusted.
        """

    def table(self, product: Product) -> str:
        """Return the name of the tool's tables for a product, as profiles record it."""

    def instance(self, model: str, product: Product, tp: int) -> Ask:
        """Bind the tool to one instance: a model on `tp` GPUs of a product.

        Raises:
            ScepsyError: the tool does not know the model, or has no tables for the product.
        """
