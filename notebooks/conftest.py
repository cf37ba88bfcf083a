"""What nbval leaves out: a cell that is stored with a picture must give one when it is run."""

import pytest


def pictures(outputs):
    return sum(any(kind.startswith("image/") for kind in output.get("data", ())) for output in outputs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    if hasattr(item, "cell"):
        stored, found = pictures(item.cell.outputs), pictures(item.test_outputs)
        if found < stored:
            item.raise_cell_error(f"{stored} picture(s) are stored with this cell, but running it gave {found}.")
    return result
