"""The lessons' exercises: a learner's function is tried on known cases, or inside the trained network."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from unittest.mock import patch

import torch
from torch import nn

from ..data.clip import Clip
from ..losses import segmentation_loss
from ..network import qsca

HINTS = {}  # name of an exercise: its hint
FOUR = ("avga", "gather", "cim", "fusion")  # the parts that a learner writes in lessons 03 to 06
UNFIT = (RuntimeError, TypeError, ValueError, IndexError)  # what wrong shapes, kinds and places end in


class ReturnsNone(Exception):
    """A learner's function that is not written yet."""


def check(
    function: Callable,
    cases: list[tuple],
    tolerance: float = 1e-4,
    mistakes: dict[str, Callable] | None = None,
    hint: str | None = None,
) -> None:
    """Print whether a function gives the expected values, or the first case where it does not.

    Args:
        function: the learner's; one that returns None counts as not attempted.
        cases: list of (arguments, expected); numbers, sequences or tensors.
        tolerance: absolute and relative; of whole numbers a hundredth of it.
        mistakes: sentence that names a usual mistake -> a function that makes it. The sentence is printed where the
            learner's function agrees with that one in every case.
        hint: what `hint` prints for this function.
    """
    name, more = function.__name__, _keep(function, hint)
    for arguments, expected in cases:
        found = function(*arguments)
        if found is None:
            print(f"{name}: not attempted (it returns None){more}")
            return
        wanted = torch.as_tensor(expected)
        try:
            given = _numbers(found)
        except (TypeError, ValueError, RuntimeError):
            print(f"{name}: not yet, expected numbers, found {type(found).__name__}{more}")
            return
        if given.shape != wanted.shape:
            trouble = f"expected shape {list(wanted.shape)}, found {list(given.shape)}"
        elif not _close(given, wanted, tolerance):
            trouble = "expected {}, found {}, for ".format(*_apart(wanted.double(), given)) + _short(arguments)
        else:
            continue
        print(f"{name}: not yet, {trouble}{more}")
        for sentence, wrong in (mistakes or {}).items():
            if _agree(function, wrong, cases, tolerance):
                print(sentence)
        return
    print(f"{name}: right, {len(cases)} case{'s' * (len(cases) > 1)}")


def _agree(function, wrong, cases, tolerance):
    try:
        return all(_close(_numbers(function(*a)), _numbers(wrong(*a)), tolerance) for a, _ in cases)
    except UNFIT:  # in a later case, which was not reached before
        return False


def check_in_network(
    model: nn.Module,
    part: str,
    function: Callable,
    clip: Clip,
    mistakes: dict[str, Callable] | None = None,
    hint: str | None = None,
) -> None:
    """Print whether the trained network marks the same pixels with the learner's function in the place of a part.

    Args:
        model, part, function: as in `swap`.
        clip: what the network is shown, as a batch of two: as it is, and with its sound an example late.
        mistakes, hint: as in `check`; a mistake is named where its network gives the same logits as the learner's.
    """
    name, more = function.__name__, _keep(function, hint)
    given = torch.stack([clip.frames] * 2), torch.stack([clip.log_mel, clip.log_mel.roll(1, 0)])

    @torch.no_grad()
    def logits(part_of_it=None):
        with swap(model, part, part_of_it) if part_of_it else nullcontext():
            return model(*given).logits[0]

    wanted = logits()
    try:
        found = logits(function)
    except ReturnsNone:
        print(f"{name}: not attempted (it returns None){more}")
        return
    except UNFIT as error:
        reason = _first_line(error)
        print(f"{name}: not yet, the network cannot go on with what yours returns: {reason}{more}")
        return
    if torch.allclose(found, wanted, atol=1e-3, rtol=1e-3):
        print(f"{name}: right, the trained network marks the same pixels with yours inside")
        return
    share = ((found > 0) != (wanted > 0)).float().mean()
    print(f"{name}: not yet, with yours inside the network decides otherwise for {share:.1%} of the pixels{more}")
    for sentence, wrong in (mistakes or {}).items():
        if torch.allclose(found, logits(wrong), atol=1e-3, rtol=1e-3):
            print(sentence)


def check_in_training(parts: Callable, model: nn.Module, batch: Clip, hint: str | None = None) -> None:
    """Print whether a network learns the same with the learner's parts inside, or which part does not and the likely reason.

    Args:
        parts: returns the learner's parts, a dictionary from each name in FOUR to a function as in `swap`.
        model: an `AudioVisualModel`, which stays as it is. batch: several clips, as `collate` gives them.
        hint: as in `check`.
    """
    model = deepcopy(model).double()  # in which rounding turns no mask over
    name, more, own = parts.__name__, _keep(parts, hint), parts()
    if own is None:
        print(f"{name}: not attempted (it returns None){more}")
        return
    if missing := [part for part in FOUR if not own.get(part)]:
        print(f"{name}: not yet, missing: {', '.join(missing)}{more}")
        return
    wanted = _gradients(model, batch, {})
    for functions in (*({part: own[part]} for part in own), own):  # each alone, then all together
        try:
            trouble = _trouble(model, batch, functions, *wanted)
        except ReturnsNone:
            trouble = "returns None"
        except UNFIT as error:
            reason = _first_line(error)
            if "inplace" in reason:
                reason = "it changes in place what the gradient still needs. Write a = a + b for a += b"
            trouble = f"stops the training: {reason}"
        if trouble:
            print(f"{name}: not yet, your {' and '.join(functions)} {trouble}{more}")
            return
    print(f"{name}: right, the loss and its gradients are the same with your {len(own)} parts inside")


def _gradients(model, batch, functions, clips=None):
    """The loss of a batch, or of its first clips, with these functions inside; and its gradient for each parameter."""
    weights = list(model.network.parameters())
    with swap_all(model, functions), torch.enable_grad():
        stages = model(batch.frames[:clips].double(), batch.log_mel[:clips].double()).stages
        loss = segmentation_loss(stages, batch.masks[:clips], batch.labelled[:clips])
        return loss, torch.autograd.grad(loss, weights, materialize_grads=True)


def _trouble(model, batch, functions, right, wanted):
    """What is wrong with the loss or its gradients with these functions inside and what is likely the reason, or None."""

    def same(loss, found, right, wanted):
        least = 1e-5 * max(gradient.norm() for gradient in wanted)
        near = all((a - b).norm() <= 0.01 * b.norm() + least for a, b in zip(found, wanted))
        return bool(torch.isclose(loss, right, rtol=1e-4)), near

    loss, found = _gradients(model, batch, functions)
    right_loss, right_gradients = same(loss, found, right, wanted)
    if right_loss and right_gradients:
        return None
    trouble = "gives wrong gradients" if right_loss else f"changes the loss from {right:.4f} to {loss:.4f}"
    if all(same(*_gradients(model, batch, functions, 1), *_gradients(model, batch, {}, 1))):
        return f"{trouble}. With one clip all is right, so it mixes up the clips of a batch"
    return trouble + right_loss * ", though the loss is right. It is detached somewhere, or under torch.no_grad()"


@contextmanager
def swap_all(model: nn.Module, functions: dict[str, Callable]) -> Iterator[None]:
    """`swap` for several parts at once, by their names."""
    with ExitStack() as stack:
        for part, function in functions.items():
            stack.enter_context(swap(model, part, function))
        yield


@contextmanager
def swap(model: nn.Module, part: str, function: Callable) -> Iterator[None]:
    """Inside `with swap(...)`, a trained network computes one of its parts with the learner's function.

    Args:
        model: an `AudioVisualModel` or a `PCMANet`.
        part: "avga", "qsca", "cim", "fusion" or "heads": `function(part, *inputs)` takes the place of its forward in every
            stage, where `part` is the trained module with all its layers; inputs that are None at the end are left out.
            "gather" or "scatter": the function takes the place of `gather_selected` or `scatter_selected` of QSCA.

    Raises:
        ReturnsNone: from the network, where the function returns None.
    """
    network = getattr(model, "network", model)

    def inside(*given):
        while given[-1] is None:
            given = given[:-1]
        out = function(*given)
        if out is None:
            raise ReturnsNone(f"{function.__name__} returns None")
        return out

    with ExitStack() as stack:
        if part in ("gather", "scatter"):
            stack.enter_context(patch.object(qsca, f"{part}_selected", inside))
        else:
            modules = getattr(network, part)
            for module in modules if isinstance(modules, nn.ModuleList) else [modules]:
                forward = lambda *given, module=module: inside(module, *given)  # noqa: E731
                stack.enter_context(patch.object(module, "forward", forward))
        yield


def hint(function: Callable) -> None:
    """Print the hint of an exercise that was checked before."""
    print(HINTS.get(function.__name__, f"There is no hint for {function.__name__}. Run its check first."))


def _first_line(error):
    return (str(error) or type(error).__name__).splitlines()[0]


def _keep(function, text):
    if text:
        HINTS[function.__name__] = text
    return f". For a hint, run hint({function.__name__})" if text else ""


def _numbers(found):
    rows = isinstance(found, (list, tuple)) and found and all(isinstance(row, torch.Tensor) for row in found)
    return (torch.stack(tuple(found)) if rows else torch.as_tensor(found)).double()


def _close(given, wanted, tolerance):
    allowed = tolerance if wanted.is_floating_point() else tolerance / 100
    return given.shape == wanted.shape and torch.allclose(given, wanted.double(), atol=allowed, rtol=allowed, equal_nan=True)


def _apart(wanted, given):
    """Both with four digits, or with as many as tell them apart."""
    for digits in (4, 7, 17):
        texts = _short(wanted, digits), _short(given, digits)
        if texts[0] != texts[1]:
            break
    return texts


def _short(value, digits=4):
    text = _text(value, digits)
    return text if len(text) < 80 else text[:77] + "..."


def _text(value, digits):
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        inner = ", ".join(_text(v, digits) for v in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.{digits}g}"
    return str(value) if isinstance(value, (int, str)) else getattr(value, "__name__", type(value).__name__)
