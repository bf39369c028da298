"""Every private name of torch and Triton that the package uses, each with its fallback.

They are those of torch 2.6 to 2.13 and Triton 3.4 to 3.7; a test lists them and finds them nowhere else in the package.
Where a name is missing, a function answers so that the slower or more cautious way is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Module = TypeVar("_Module", bound=nn.Module)


def constant_when_compiled(function: _Function) -> _Function:
    """`torch.compiler.assume_constant_result`, without the second that importing the compiler takes.

    It sets `_dynamo_marked_constant`. If torch renames the mark, the compiler traces the function.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


# The compiler guards on the transforms that are active, so that a constant answer stays right.
@constant_when_compiled
def under_transforms() -> bool:
    """Whether `torch.func` or forward-mode differentiation is active (without the names: no)."""
    is_active = getattr(torch._C, "_are_functorch_transforms_active", None)
    return (is_active is not None and is_active()) or getattr(forward_ad, "_current_level", -1) >= 0


def is_tracing() -> bool:
    """Whether `torch.jit.trace` or the ONNX tracer records what is called (without the name: yes)."""
    state = getattr(torch._C, "_get_tracing_state", None)
    return state is None or state() is not None


def is_under_dispatch_mode() -> bool:
    """Whether a `TorchDispatchMode` sees every operator (without the name: yes)."""
    depth = getattr(torch._C, "_len_torch_dispatch_stack", None)
    return depth is None or bool(depth())


def is_under_function_mode() -> bool:
    """Whether a `TorchFunctionMode` sees every function of torch (without the name: yes).

    `with torch.device(...)` is such a mode, but one that keeps no tensor.
    """
    try:
        from torch.overrides import _get_current_function_mode_stack
        from torch.utils._device import DeviceContext
    except ImportError:
        return True
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def is_batched(x: Tensor) -> bool:
    """Whether `x` is a batch of `torch.autograd.grad(is_grads_batched=True)` (without the name: yes)."""
    try:
        from torch._C._functorch import is_legacy_batchedtensor
    except ImportError:
        return True
    return bool(is_legacy_batchedtensor(x))


def is_fake(x: object) -> bool:
    """Whether `x` is a tensor without values, as torch.export uses them (without the name: no)."""
    try:
        from torch._subclasses.fake_tensor import FakeTensor
    except ImportError:
        return False
    return isinstance(x, FakeTensor)


def has_global_hooks() -> bool:
    """Whether hooks are registered for all modules (without the name: yes)."""
    has_any = getattr(torch.nn.modules.module, "_has_any_global_hook", None)
    return has_any is None or bool(has_any())


def register_namedtuple(kind: type, name: str) -> None:
    """Tell `torch.export.save` of a named tuple (without the name: exports of it cannot be saved)."""
    try:
        from torch.utils._pytree import _register_namedtuple
    except ImportError:
        return
    _register_namedtuple(kind, serialized_type_name=name)


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """The modules that `module` holds, by name; `named_children` leaves out those that are None or listed twice."""
    children: dict[str, nn.Module | None] = module._modules
    return children


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The parameters of `module` itself, by name; `named_parameters` leaves out those that are None or shared."""
    parameters: dict[str, nn.Parameter | None] = module._parameters
    return parameters


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The buffers of `module` itself, by name; `named_buffers` leaves out those that are None or shared."""
    buffers: dict[str, Tensor | None] = module._buffers
    return buffers


def hooks_of(module: nn.Module) -> list[Any]:
    """The hooks that run when `module` is called, or when gradients pass through it."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for name in names for hook in vars(module)[name].values()]


def has_hooks(module: nn.Module) -> bool:
    """Whether `hooks_of` would find any."""
    state = vars(module)
    forward = state["_forward_hooks"] or state["_forward_pre_hooks"]
    return bool(forward or state["_backward_hooks"] or state["_backward_pre_hooks"])


def pruned_by(hook: object) -> str | None:
    """The name of the tensor that a hook of `torch.nn.utils.prune` masks (without the name: none)."""
    return getattr(hook, "_tensor_name", None)


def with_children(module: _Module, children: dict[str, nn.Module | None]) -> _Module:
    """A copy of `module` that holds other modules, and shares parameters, buffers and hooks with it."""
    copied = type(module).__new__(type(module))  # copy.copy refuses parametrized modules
    vars(copied).update(vars(module))
    copied._modules = children
    return copied


def replace_tensors(module: nn.Module, replace: Callable[[str, Tensor], Tensor]) -> None:
    """Give `module` other parameters and buffers, by name; a module that it shares them with keeps its own."""
    for kind in ("_parameters", "_buffers"):
        tensors = vars(module)[kind].copy()
        vars(module)[kind] = {name: None if x is None else replace(name, x) for name, x in tensors.items()}


def bare_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` without hooks and without a forward of its own; parameters and modules inside are shared."""
    copied = type(module).__new__(type(module))
    state = {name: value for name, value in vars(module).items() if name != "forward"}
    state.update((name, hooks) for name, hooks in vars(nn.Module()).items() if "hooks" in name)
    state["_parameters"], state["_modules"] = dict(module._parameters), dict(module._modules)
    vars(copied).update(state)
    return copied


def version_of(x: Tensor) -> int:
    """How often `x`, or a view of it, was changed in place as far as torch knows."""
    return x._version


def is_compiled(module: nn.Module) -> bool:
    """Whether `module` is what `torch.compile` returned, or was compiled in place."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # importing it would take seconds
    wrapped = compiler is not None and isinstance(module, compiler.OptimizedModule)
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


def note_inspection(function: type[torch.autograd.Function], note: Callable[[Any], None]) -> bool:
    """Call `note(node)` when a caller looks behind a node of the autograd graph, or registers a hook on it.

    Nodes that `function` puts into the graph are instances of its `_backward_cls`; a caller finds the nodes behind one
    by its `next_functions`. Returns whether torch has these names.
    """
    node_class: Any = getattr(function, "_backward_cls", None)
    base: Any = getattr(torch._C, "_FunctionBase", None)
    if node_class is None or not hasattr(base, "next_functions"):
        return False
    for name in ("register_hook", "register_prehook"):
        setattr(node_class, name, _noting(getattr(node_class, name), note))
    node_class.next_functions = property(_noting(base.next_functions.__get__, note))
    return True


def nodes_behind(node: Any) -> list[Any]:
    """The nodes to which `node` hands gradients; unlike its `next_functions`, this counts as no inspection."""
    base: Any = getattr(torch._C, "_FunctionBase", None)
    is_function = base is not None and isinstance(node, base)
    pairs = base.next_functions.__get__(node) if is_function else node.next_functions
    return [following for following, _ in pairs if following is not None]


def _noting(call: Callable[..., Any], note: Callable[[Any], None]) -> Callable[..., Any]:
    def noting(node: Any, *arguments: Any) -> Any:
        note(node)
        return call(node, *arguments)

    return noting


def raw_stream(device: torch.device) -> int:
    """The address of a GPU's current stream, without an object for it where torch has the name."""
    find = getattr(torch._C, "_cuda_getCurrentRawStream", None)
    return int(torch.cuda.current_stream(device).cuda_stream if find is None else find(device.index))


def triton_allocator() -> Any:
    """The allocator that Triton's kernels use for tensor descriptors; None if it cannot be found."""
    try:
        from triton.runtime import _allocation
    except ImportError:
        return None
    held = getattr(_allocation, "_allocator", None)
    return held.get() if held is not None and hasattr(held, "get") else held  # Triton 3.4 keeps it in no ContextVar
