"""The house style that ruff does not know: files of a readable length, docstrings that are sentences, real comments."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import hstl_fast
from hstl_fast import (
    HSTL,
    backends,
    checkpoints,
    data,
    distributed,
    embedding,
    evaluation,
    export,
    files,
    functional,
    hierarchy,
    layout,
    losses,
    names,
    nn,
    options,
    progress,
    reference,
    silhouettes,
)
from hstl_fast.evaluation import (
    curves,
    division,
    error_rates,
    open_set,
    open_set_division,
    open_set_pictures,
    pictures,
    protocols,
    published,
    reranking,
    search,
)
from hstl_fast.hierarchy import clustering, feature_sets, text
from hstl_fast.models import levels
from hstl_fast.ops import _dispatch
from hstl_fast.recognition import explaining, thresholds
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.roster import Roster
from hstl_fast.silhouettes import walkers
from hstl_fast.training import (
    batch_norm,
    checks,
    config,
    differences,
    evaluating,
    folder,
    loop,
    opengait,
    optimization,
    people,
    plain,
    processes,
    state,
    stopping,
    watch,
    yaml_files,
)

ROOT = Path(__file__).parents[1]
LONGEST = 450
# A docstring that begins with one of these words is a fragment of a sentence whose other half is elsewhere.
FRAGMENTS = ("Of", "That", "With", "Where", "Whose", "What", "By", "For", "In")
# These folders keep to the style.
PLACES = ("hstl_fast", "benchmarks", "csrc")


def checked() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for place in PLACES for path in sorted((ROOT / place).rglob("*.py"))]


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    native = [backends.package(name) for name in backends.NATIVE]
    modules = (hstl_fast, functional, losses, checkpoints, export, silhouettes, walkers, data, evaluation, files, names)
    evaluations = (curves, division, pictures, protocols, published, reranking, search, error_rates, open_set)
    evaluations += (open_set_division, open_set_pictures, levels, explaining, thresholds)
    training = (checks, config, evaluating, opengait, plain, yaml_files, batch_norm, differences, folder, loop)
    training += (optimization, people, processes, state, stopping, watch)
    hierarchies = (hierarchy, clustering, feature_sets, text)
    others = (distributed, embedding, progress, reference, layout, _dispatch, backends)
    for module in (*modules, *evaluations, *training, *hierarchies, *others, *native):
        listed = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        for name in listed:
            value = getattr(module, name)
            is_listed = hasattr(module, "__all__") and getattr(value, "__module__", "").startswith("hstl_fast")
            if inspect.isfunction(value) and (is_listed or value.__module__ == module.__name__):
                yield f"{module.__name__}.{name}", value
    for layer in (nn.ARME, nn.ASTP, nn.StripPool, nn.FTA, nn.SeparateFCs):
        yield f"{layer.__name__}.forward", layer.forward
    for kind in (HSTL, distributed.Processes, options.Option, hierarchy.Hierarchy, Gallery, Roster):
        for name, value in vars(kind).items():
            method = getattr(value, "__func__", value)  # of a class method
            if inspect.isfunction(method) and not name.startswith("_"):
                yield f"{kind.__name__}.{name}", method


def sections(docstring: str) -> dict[str, str]:
    """The sections of a Google-style docstring by their titles."""
    parts = re.split(r"^(Args|Returns|Yields|Raises|Attributes):$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def raises(function: Callable[..., Any]) -> bool:
    """Whether the body of the function, not of functions inside it, holds a `raise`."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    pending, inner = list(ast.iter_child_nodes(definition)), (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, inner):
            pending.extend(ast.iter_child_nodes(node))
    return False


def strings_after_assignments(source: str) -> list[int]:
    """The lines of string literals that follow an assignment, where a comment above it is wanted."""
    bodies = [body for node in ast.walk(ast.parse(source)) if isinstance(body := getattr(node, "body", None), list)]
    return [
        after.lineno
        for body in bodies
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign | ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    ]


def fragments(source: str) -> list[str]:
    """The first words of docstrings that are fragments."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    docstrings = [ast.get_docstring(node) or "" for node in nodes]
    return [text.splitlines()[0] for text in docstrings if text.split(" ", 1)[0] in FRAGMENTS]


@pytest.mark.parametrize("name", checked())
def test_keeps_to_the_style(name: str) -> None:
    source = (ROOT / name).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LONGEST
    assert not strings_after_assignments(source)
    assert not fragments(source)


def test_sees_what_it_looks_for() -> None:
    function = 'def f():\n    """That a model keeps."""\n'
    source = f'A = 1\n"""Of a batch."""\n{function}class C:\n    x: int\n    """Why."""\n'
    assert strings_after_assignments(source) == [2, 7]
    assert fragments(source) == ["That a model keeps."]
    assert not strings_after_assignments('"""Module."""\nA = "text"\nB = 1\n')


@pytest.mark.parametrize(("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in public_functions()])
def test_public_functions_document_every_argument(name: str, function: Callable[..., Any]) -> None:
    found = sections(function.__doc__ or "")
    arguments = [argument for argument in inspect.signature(function).parameters if argument not in ("self", "cls")]
    assert re.findall(r"^    \*{0,2}(\w+):", found.get("Args", ""), re.MULTILINE) == arguments
    annotation = inspect.signature(function).return_annotation
    assert annotation in (None, "None") or {"Returns", "Yields"} & set(found)


@pytest.mark.parametrize(("name", "function"), [pytest.param(*pair, id=pair[0]) for pair in public_functions()])
def test_public_functions_document_what_they_raise(name: str, function: Callable[..., Any]) -> None:
    assert not raises(function) or "Raises" in sections(function.__doc__ or "")


def test_sees_what_is_raised() -> None:
    def by_itself(x: int) -> None:
        if x:
            raise ValueError

    def by_another() -> Callable[[], None]:
        def inner() -> None:
            raise ValueError

        return inner

    assert raises(by_itself)
    assert not raises(by_another)
