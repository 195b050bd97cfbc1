"""Training: one loop for every backend, over the same batches in the same order."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from blocks._checkpoint import Checkpoint, check_draws, check_resume, restore, snapshot
from blocks._errors import FieldError, FileError, ParamError
from blocks._evaluate import Data, score
from blocks._infer import check_ints
from blocks._models import origin, params_of, trainable_of
from blocks._params import Params
from blocks._plan import LEFT_OUT, EarlyStop, History, Plan
from blocks._spec import Node
from blocks._stack import call_deep
from blocks.optimizer import Optimizer


def fit(
    model: Any,
    data: tuple[Any, Any],
    *,
    loss: Any = LEFT_OUT,
    optimizer: Optimizer | None = None,
    epochs: int = LEFT_OUT,
    batch_size: int = LEFT_OUT,
    seed: int = LEFT_OUT,
    node: Node | None = None,
    clip_norm: float | None = LEFT_OUT,
    metrics: Iterable[str] = LEFT_OUT,
    validation: tuple[Any, Any] | None = None,
    early_stop: EarlyStop | None = LEFT_OUT,
    keep_best: bool = LEFT_OUT,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: Checkpoint | None = None,
    progress: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> History:
    """Train a model in place with its framework's own optimiser and loss.

    Every backend sees the same batches: the order comes from `seed` alone, and the last batch of an
    epoch may be smaller. What is frozen (see `set_trainable`) stays as it is.

    Args:
        model: any model made by `lower`.
        data: inputs and targets; their first axis is the examples.
        loss: "cross_entropy" if left out (the mean of -log softmax(output)[label]; the last axis is
            the classes, and there is an integer label for each position before it), "mse" and "mae"
            (the mean of (output - target)^2 or |output - target| over all elements; that of |0| has
            gradient 0), "binary_cross_entropy" (the mean of log(1 + exp(x)) - target * x for
            outputs x that are logits and targets from 0 to 1), or a `Custom` block that takes
            (*outputs, target) and returns one number for the batch or for each example, of which
            the mean is taken.
        optimizer: `SGD(0.01)` if left out.
        epochs, batch_size: how often the data is seen, once if left out, and how many examples make
            a step, 32 if left out.
        seed: of the order; 0 if left out.
        node: of a model that was not made by `lower`.
        clip_norm: all gradients g become g * clip_norm / max(norm, clip_norm), where norm is that
            of all of them together, without frozen ones; before any weight decay.
        metrics: for the table of epochs; those of `evaluate`.
        validation: inputs and targets to evaluate after each epoch.
        early_stop: when to stop before the last epoch.
        keep_best: whether `History.best` keeps the parameters of the best epoch.
        checkpoint: a file for `load_checkpoint`, written after the last step and every so many
            before it, and never in part.
        checkpoint_every: that many steps; those of an epoch if left out.
        resume: a checkpoint to go on from. The model takes its parameters, the optimiser its state,
            and what follows is what would have followed, on its backend exactly and on another but
            for rounding and unless it draws random numbers of its own. Options that are left out
            are those of the checkpoint. Another learning rate, `epochs` (which counts from the
            beginning), `early_stop` or `keep_best` may be given, and no other option. The data must
            be given again, and be the same.
        progress: whether to show a bar.
        on_step: called with the number of steps made and the loss.
        on_epoch: called with the number of epochs made and the row of the table.

    >>> import blocks as bl
    >>> model = bl.lower(bl.Dense(1), "numpy", input_shape=(2,))
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> history = bl.fit(model, (x, x.sum(1, keepdims=True)), loss="mse", optimizer=bl.SGD(0.1),
    ...                  epochs=20)
    >>> len(history.losses), history.losses[-1] < 1e-3
    (40, True)
    """
    known = origin(model, node)
    plan = planned(
        resume,
        loss=loss,
        optimizer=LEFT_OUT if optimizer is None else optimizer,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        clip_norm=clip_norm,
        metrics=metrics,
        early_stop=early_stop,
        keep_best=keep_best,
    )
    check_calls(on_step=on_step, on_epoch=on_epoch)
    check_place(checkpoint, checkpoint_every)
    plan.optimizer.check_dtype(known.node.param_dtype)
    if not any(spec.trainable for spec in known.node.param_specs().values()):
        raise ParamError("fit has nothing to train: the network has no trainable parameters.")
    if not any(trainable_of(model, node=known.node).values()):
        raise ParamError(
            "fit has nothing to train: all parameters are frozen.\n"
            '  Let some change: set_trainable(model, {"**": True}).'
        )
    words = (plan.loss, *plan.metrics)
    given = Data.of(known.node, data, words, "data")
    tests = None if validation is None else Data.of(known.node, validation, words, "validation")
    columns = plan.columns(tests is not None)
    if plan.early_stop is not None:
        plan.early_stop.check_columns(columns, tests is not None)
    if checkpoint is not None:
        check_draws(model, known)
    if resume is not None:
        check_resume(resume, model, known, plan, len(given), columns)
    judge = Judge(partial(score, model, known), plan, given, tests)
    trainer = known.call("trainer", known.node, model, plan.loss, plan.optimizer, plan.clip_norm)
    done = Progress()
    if resume is not None:
        restore(resume, model, known, trainer)
        done = Progress.of(resume.history, judge.column)
    per_epoch = plan.steps(len(given))
    taken = partial(snapshot, model, known, trainer, plan, len(given))
    save = Saver(checkpoint, checkpoint_every or per_epoch, taken)
    with shown(progress, plan.epochs * per_epoch) as advance:
        while not plan.done(done.epochs):
            order = list(batches(len(given), plan.batch_size, plan.seed, len(done.epochs)))
            for rows in order[len(done.losses) - per_epoch * len(done.epochs) :]:
                start = time.perf_counter()
                rate = plan.optimizer.rate(len(done.losses))
                done.losses.append(call_deep(known.levels, trainer, *given.take(rows), rate))
                done.seconds += time.perf_counter() - start
                if len(done.losses) % per_epoch:  # else the epoch has no row yet
                    save(done)
                for call in (advance, on_step):
                    if call is not None:
                        call(len(done.losses), done.losses[-1])
            losses, sizes = done.losses[-per_epoch:], [len(rows) for rows in order]
            done.epochs.append(judge.row(np.average(losses, weights=sizes)))
            if plan.keep_best and done.epochs[-1][judge.column] < done.lowest:
                done.lowest = done.epochs[-1][judge.column]
                done.best = params_of(model, node=known.node)
            save(done)
            if on_epoch is not None:
                on_epoch(len(done.epochs), done.epochs[-1])
    save(done, last=True)
    return done.history()


def planned(resume: Any, **given: Any) -> Plan:
    """The options that are given; those that are not are the checkpoint's, else the defaults."""
    if not isinstance(resume, (Checkpoint, NoneType)):
        raise FieldError(f"resume must be a checkpoint from load_checkpoint, got {resume!r}.")
    before = {} if resume is None else resume.plan.fields()
    return Plan(**before | {name: value for name, value in given.items() if value is not LEFT_OUT})


@dataclass
class Progress:
    """What training has done so far; `lowest` is the loss of the best epoch."""

    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    best: Params | None = None
    lowest: float = math.inf

    @classmethod
    def of(cls, history: History, column: str) -> Progress:
        """What a history says; `column` is that of the losses that say which epoch is the best."""
        past = [] if history.best is None else [row[column] for row in history.epochs]
        lowest = min((loss for loss in past if not math.isnan(loss)), default=math.inf)
        epochs = list(history.epochs)
        return cls(list(history.losses), epochs, history.seconds, history.best, lowest)

    def history(self) -> History:
        return History(tuple(self.losses), self.seconds, tuple(self.epochs), self.best)


@dataclass
class Saver:
    """Writes a checkpoint after every so many steps and after the last; none without a path."""

    path: Any
    every: int
    taken: Callable[[History], Checkpoint]
    step: int | None = None

    def __call__(self, done: Progress, last: bool = False) -> None:
        step = len(done.losses)
        if self.path is not None and step != self.step and (last or step % self.every == 0):
            self.taken(done.history()).save(self.path)
            self.step = step


@dataclass(frozen=True)
class Judge:
    """What the table says of an epoch."""

    score: Callable[[Data, dict[str, Any]], dict[str, float]]
    plan: Plan
    data: Data
    tests: Data | None

    @property
    def column(self) -> str:
        """The loss that says which epoch is the best."""
        return "loss" if self.tests is None else "validation_loss"

    def row(self, loss: float) -> dict[str, float]:
        """The row of an epoch whose steps had this loss."""
        metrics = {name: name for name in self.plan.metrics}
        row = {"loss": float(loss)}
        if metrics:
            row |= self.score(self.data, metrics)
        if self.tests is not None:
            found = self.score(self.tests, {"loss": self.plan.loss} | metrics)
            row |= {f"validation_{name}": value for name, value in found.items()}
        return row


def check_calls(**calls: Any) -> None:
    """Refuse what cannot be called."""
    for name, call in calls.items():
        if call is not None and not callable(call):
            raise FieldError(f"{name} must be a function, got {call!r}.")


def check_place(path: Any, every: Any) -> None:
    """Refuse a checkpoint that could not be written, before training begins."""
    if every is not None:
        check_ints(checkpoint_every=(every, 1))
    if path is None:
        if every is not None:
            raise FieldError(f"checkpoint_every={every} needs a file: give checkpoint=PATH.")
        return
    if not isinstance(path, (str, os.PathLike)):
        raise FieldError(f"checkpoint must be the path of a file, got {path!r}.")
    if os.path.isdir(path) or not Path(path).parent.is_dir():
        raise FileError(f"{path} cannot be written: it is a folder, or there is none for it.")


@contextmanager
def shown(progress: bool, steps: int) -> Iterator[Callable[[int, float], None] | None]:
    """A bar that is told of each step, if one is wanted."""
    if not progress:
        yield None
        return
    from blocks._console import step_bar

    with step_bar("fit", steps) as advance:
        yield advance


def batches(examples: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Row numbers of each batch of an epoch: a new order every epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(examples)
    for start in range(0, examples, batch_size):
        yield order[start : start + batch_size]
