"""The notebooks' exercises: try a learner's function on cases whose answers are known."""

import torch


def check(function, cases, tolerance=1e-4):
    """Print whether a function gives the expected values, or the first case where it does not.

    Args:
        function: the learner's; one that returns None counts as not attempted.
        cases: list of (arguments, expected); numbers, sequences or tensors.
        tolerance: absolute and relative; of whole numbers a hundredth of it.
    """
    for arguments, expected in cases:
        found = function(*arguments)
        if found is None:
            print(f"{function.__name__}: not attempted (it returns None)")
            return
        wanted = torch.as_tensor(expected)
        allowed = tolerance if wanted.is_floating_point() else tolerance / 100
        wanted = wanted.double()
        try:
            rows = isinstance(found, (list, tuple)) and found and all(isinstance(row, torch.Tensor) for row in found)
            given = (torch.stack(tuple(found)) if rows else torch.as_tensor(found)).double()
        except (TypeError, ValueError, RuntimeError):
            print(f"{function.__name__}: not yet, expected numbers, found {type(found).__name__}")
            return
        if given.shape != wanted.shape:
            print(f"{function.__name__}: not yet, expected shape {list(wanted.shape)}, found {list(given.shape)}")
            return
        if not torch.allclose(given, wanted, atol=allowed, rtol=allowed):
            print(f"{function.__name__}: not yet, expected {_short(wanted)}, found {_short(given)}, for {_short(arguments)}")
            return
    print(f"{function.__name__}: right, {len(cases)} cases")


def _short(value):
    text = _text(value)
    return text if len(text) < 80 else text[:77] + "..."


def _text(value):
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return str(value.tolist() if isinstance(value, torch.Tensor) else value)
