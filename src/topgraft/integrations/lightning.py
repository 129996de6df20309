"""The freeze contract in a training by Lightning; needs the extra ``topgraft[lightning]``."""

from __future__ import annotations

from topgraft.contract import Contract
from topgraft.errors import TopgraftError

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise TopgraftError(
        "topgraft.integrations.lightning needs Lightning, an optional extra: "
        "pip install 'topgraft[lightning]'."
    ) from error


class FreezeContract(Callback):
    """Holds the grafts inside a ``LightningModule`` to the freeze contract.

    See :class:`topgraft.contract.Contract`. A parameter of a frozen block in an optimizer ends ``fit``
    before its first step with a ``TopgraftError``; something of a frozen block that changed ends it after
    its last one with a ``RunningError``. Frozen blocks are in eval mode in every forward pass.

    Examples
    --------
    >>> callback = FreezeContract()  # for lightning.Trainer(callbacks=[callback])
    """

    def __init__(self) -> None:
        self._contract: Contract | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the optimizers and note what is frozen."""
        self._contract = Contract(pl_module, *trainer.optimizers)
        self._contract.begin()

    def on_fit_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
    ) -> None:
        """Compare, after all other callbacks have ended the training."""
        if self._contract is not None:
            self._contract.end()

    def on_exception(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        exception: BaseException,
    ) -> None:
        """Stop listening; the training did not end."""
        if self._contract is not None:
            self._contract.close()
