"""What loading gives: a backbone, and an honest account of which weights arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from topgraft.errors import TopgraftError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from topgraft.backbones.described import Preprocess
    from topgraft.chain import Chain

Modality = Literal["picture", "text", "sound", "array", "row"]
PRETRAINED = "pretrained"
"""Pictures are resized as they were when the weights were made."""
Matched = Literal["name", "order and shape", "as given", "random"]


@dataclass(frozen=True)
class LoadReport:
    """Which weights arrived in the kept part: the network without its old output layer.

    Parameters
    ----------
    source
        The backbone as the user gave it.
    weights
        Where the weights came from, in words.
    digest
        SHA-256 (hex) over names, types, shapes and bytes of every tensor of the kept part as it is now.
    tensors, arrived
        Tensors of the kept part (parameters and buffers), and how many of them arrived.
    parameters, arrived_parameters
        Numbers in the parameters of the kept part, and how many of them arrived.
    missing
        Names of the kept part that did not arrive, or arrived in another shape.
    left_over
        Names in the weights that belong nowhere in the network.
    not_needed
        Names in the weights that belong to the old output layer.
    beside
        Names in the weights of what is left out on purpose, such as a pooler or the heads of pretraining.
    matched
        How names were paired: by ``"name"``, by ``"order and shape"``, ``"as given"`` (a module that came
        with its values), or ``"random"`` (nothing was loaded).
    notes
        Plain sentences: shapes that differ, what was allowed to be missing.
    """

    source: str
    weights: str
    digest: str
    tensors: int
    arrived: int
    parameters: int
    arrived_parameters: int
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    not_needed: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    matched: Matched = "name"
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import report

        return report(self)

    @property
    def share(self) -> float:
        """Share of the kept part's parameters that arrived, 0 to 1."""
        return self.arrived_parameters / self.parameters if self.parameters else 1.0

    def lines(self) -> list[str]:
        r"""The report in plain words, one line each, without a label in front.

        Examples
        --------
        >>> report = LoadReport(
        ...     "timm/resnet18",
        ...     "hub cache",
        ...     "",
        ...     120,
        ...     120,
        ...     11_176_512,
        ...     11_176_512,
        ...     not_needed=("fc.weight", "fc.bias"),
        ... )
        >>> print(*report.lines(), sep="\n")
        timm/resnet18: 120 of 120 tensors of the backbone arrived (100 %); 2 of the old output layer left out
        from hub cache
        """
        if self.matched == "random":
            first = f"{self.source}: random values, no weights were loaded ({_tensors(self.tensors)})"
        elif self.matched == "as given":
            first = f"{self.source}: {_tensors(self.tensors)}, {self.parameters:,} parameters"
        else:
            whole = self.arrived == self.tensors
            share = "100 %" if whole else f"{percent(self.share)} of its parameters"
            first = (
                f"{self.source}: {self.arrived} of {_tensors(self.tensors)} of the backbone arrived ({share})"
            )
        if self.not_needed:
            first += f"; {len(self.not_needed)} of the old output layer left out"
        if self.beside:
            first += f"; {len(self.beside)} not needed ({some(self.beside, limit=2)})"
        lines = [first]
        if self.matched != "random":
            how = ", paired by order and shape, not by name" if self.matched == "order and shape" else ""
            lines.append(f"from {self.weights}{how}")
        if self.missing and self.matched != "random":
            lines.append(f"did not arrive: {some(self.missing)}")
        if self.left_over:
            lines.append(f"left over: {some(self.left_over)}")
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values; ``LoadReport.from_json`` gives the same report back."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoadReport:
        """The report that :meth:`to_json` wrote."""
        plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class Backbone:
    """A pretrained network as a chain, with the preprocessing that it was trained with.

    Parameters
    ----------
    source
        As the user gave it, such as ``"timm/tf_efficientnet_lite0"``.
    modality
        What it reads: ``"picture"``, ``"text"``, ``"sound"``, ``"array"`` or ``"row"``.
    chain
        The network, cut into blocks.
    preprocess
        From decoded examples to the network's inputs.
    report
        Which weights arrived.
    recipe
        JSON values that :func:`topgraft.backbones.rebuild` makes the empty network from.
    licence
        Licence of the weights, where it is known.
    """

    source: str
    modality: Modality
    chain: Chain
    preprocess: Preprocess
    report: LoadReport
    recipe: Mapping[str, Any]
    licence: str | None = None

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from topgraft.notebook import backbone

        return backbone(self)

    @property
    def network(self) -> nn.Module:
        """The original module, with its own parameter names."""
        return self.chain.network

    @property
    def is_untrained(self) -> bool:
        """Whether it is a network for rows that has learned nothing yet: random values, no weights."""
        return self.modality == "row" and self.report.matched == "random"

    def resized(self, how: str) -> Backbone:
        """The same network, with pictures brought to its size in another way.

        Parameters
        ----------
        how
            ``"crop"``: the shorter side fits, and the middle is cut out; ``"squash"``: stretched to the size;
            ``"border"``: the longer side fits, and the rest has the mean colour; ``"pretrained"``: as it is.

        Raises
        ------
        TopgraftError
            If the network reads no pictures, or ``how`` is none of these.
        """
        from topgraft.backbones.picture_preprocess import Mode, PicturePreprocess

        if how == PRETRAINED:
            return self
        if not isinstance(self.preprocess, PicturePreprocess):
            raise TopgraftError(f"resize={how} is for pictures; {self.source} reads {self.modality}s.")
        if how not in get_args(Mode):
            choices = ", ".join((PRETRAINED, *get_args(Mode)))
            raise TopgraftError(f"resize={how}: give one of {choices}.")
        return replace(self, preprocess=self.preprocess.resized(cast("Mode", how)))

    def lines(self) -> list[str]:
        """What was loaded, in plain words."""
        licence = [f"licence of the weights: {self.licence}"] if self.licence else []
        return [*self.report.lines(), *self.preprocess.lines(), *licence]


@dataclass(frozen=True)
class Filled:
    """What happened when weights were put into a network.

    Parameters
    ----------
    origin
        Where the values come from, in words.
    matched
        As in :class:`LoadReport`.
    arrived
        Names in the network's state dict that were filled.
    unused
        Names in the weights that were not used.
    misshapen
        Network's name -> a sentence on the shapes, where they differ.
    """

    origin: str
    matched: Matched
    arrived: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    misshapen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A filled network, what it reads and how it is built: what each kind of source hands over.

    Parameters
    ----------
    network
        With its values.
    modality, preprocess, recipe, licence
        As in :class:`Backbone`.
    filled
        Which weights it has.
    output_layers
        Module names of the old output layer; ``()`` where there is none; ``None`` where it has to be found.
    beside
        Patterns of names that weights may hold beside the backbone.
    example
        A batch of two or more for making the chain; made from the preprocessing where it is ``None``.
    notes
        Plain sentences for the report.
    """

    network: nn.Module
    modality: Modality
    preprocess: Preprocess
    recipe: dict[str, Any]
    filled: Filled
    output_layers: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()
    licence: str | None = None
    example: Tensor | Mapping[str, Tensor] | None = None
    notes: tuple[str, ...] = ()


def percent(share: float) -> str:
    """A share in percent that never rounds up to 100.

    Examples
    --------
    >>> percent(1.0), percent(0.99999), percent(0.5)
    ('100 %', '99.9 %', '50.0 %')
    """
    if share >= 1:
        return "100 %"
    return f"{int(share * 1000) / 10:.1f} %"


def some(names: tuple[str, ...], *, limit: int = 5) -> str:
    """The first names and how many more there are.

    Examples
    --------
    >>> some(("a", "b", "c"), limit=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _tensors(count: int) -> str:
    return f"{count} tensor" if count == 1 else f"{count} tensors"
