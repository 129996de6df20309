"""The freeze contract in a training by the ``Trainer`` of Transformers, and the module that it trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from topgraft.contract import Contract
from topgraft.errors import TopgraftError
from topgraft.graft import Graft
from topgraft.objective import are_binary, are_numbers, mean_loss


class FreezeContract(TrainerCallback):
    """Holds the grafts inside a model to the freeze contract; see :class:`topgraft.contract.Contract`.

    A parameter of a frozen block in the optimizer ends ``train`` before its first step with a
    ``TopgraftError``; something of a frozen block that changed ends it after its last one with a
    ``RunningError``. Frozen blocks are in eval mode in every forward pass.

    Examples
    --------
    >>> callback = FreezeContract()  # for transformers.Trainer(..., callbacks=[callback])
    """

    def __init__(self) -> None:
        self._contract: Contract | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Check the optimizer and note what is frozen."""
        optimizer = kwargs.get("optimizer")
        if self._contract is not None:  # of a training that did not end
            self._contract.close()
        self._contract = Contract(kwargs["model"], *([] if optimizer is None else [optimizer]))
        self._contract.begin()

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Compare."""
        if self._contract is not None:
            self._contract.end()


class Labelled(nn.Module):
    """A graft with the loss of its labels, in the form in which the ``Trainer`` asks for both.

    The ``Trainer`` drops columns that it does not find in ``forward``: give it
    ``remove_unused_columns=False``.

    Parameters
    ----------
    graft
        Of any network; its inputs are the columns besides ``labels``, by the names of the network's own
        ``forward``.

    Raises
    ------
    TopgraftError
        In ``forward``, if the shape of the labels is not that of what the graft gives.

    Examples
    --------
    >>> import torch, topgraft as tg
    >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> model = Labelled(tg.graft(network, freeze=1, head=3, example=torch.randn(2, 4)))
    >>> sorted(model(labels=torch.tensor([0, 2]), input=torch.randn(2, 4)))
    ['logits', 'loss']
    """

    accepts_loss_kwargs = False
    """Tells the ``Trainer`` that the loss is the mean over a batch, and that no count is to be handed in."""

    def __init__(self, graft: Graft) -> None:
        super().__init__()
        self.graft = graft
        nn.Module.register_state_dict_post_hook(self, _plain)

    def forward(self, labels: Tensor | None = None, **inputs: Tensor) -> dict[str, Tensor]:
        """What the graft gives, ``(batch, outputs)``; with labels also their mean loss.

        Labels say by their dtype what is learned: whole numbers ``(batch,)`` classes, by cross-entropy in
        nats; booleans ``(batch, outputs)`` several labels, by the binary one; uint8 ``(batch, outputs)`` the
        steps of ordered classes (:func:`topgraft.ordered.steps_of`), also by that; floats
        ``(batch, outputs)`` numbers, best standardised, by the squared error.
        """
        logits = self.graft(inputs)
        if labels is None:
            return {"logits": logits}
        return {"loss": mean_loss(logits.float(), _fitting(labels, logits)), "logits": logits}


def _fitting(labels: Tensor, logits: Tensor) -> Tensor:
    """The labels as a loss takes them; refused where their shape is another one than that of the logits."""
    if labels.ndim == 1 and not (labels.is_floating_point() or labels.dtype == torch.bool):
        return labels.long()
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.shape != logits.shape or not (are_binary(labels) or are_numbers(labels)):
        raise TopgraftError(
            f"labels are {tuple(labels.shape)} {str(labels.dtype).removeprefix('torch.')}, and the graft "
            f"gives {tuple(logits.shape)}. Expected whole numbers ({len(logits)},) for classes, or of the "
            "same shape booleans for several labels, uint8 for steps of ordered classes, floats for numbers."
        )
    return labels


def _plain(_module: nn.Module, state_dict: dict[str, Any], _prefix: str, _metadata: Any) -> None:
    """Make a state dict fit for safetensors, which takes no other memory layout and no shared memory."""
    seen: set[int] = set()
    for name, tensor in state_dict.items():
        if isinstance(tensor, Tensor):
            shared = tensor.numel() > 0 and tensor.data_ptr() in seen
            seen.add(tensor.data_ptr())
            state_dict[name] = tensor.clone().contiguous() if shared else tensor.contiguous()
