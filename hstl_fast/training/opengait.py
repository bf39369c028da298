"""OpenGait's YAML files: what means the same here is taken, and everything else is named, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hstl_fast.training.checks import ConfigError, Plain, is_null, typed
from hstl_fast.training.plain import Given, located
from hstl_fast.training.yaml_files import Document

SECTIONS = (
    *("data_cfg", "evaluator_cfg", "loss_cfg", "model_cfg", "optimizer_cfg", "scheduler_cfg", "trainer_cfg"),
    "associator_cfg",
)
_PRESETS = {"casiab": "casia-b", "oumvlp": "oumvlp", "grew": "grew", "gait3d": "gait3d"}
_SOLVERS = {"SGD": "sgd", "Adam": "adam"}
_METRICS = {"euc": "euclidean", "cos": "cosine"}
# Keys whose values are those of a field.
_SAME = {
    "data_cfg.dataset_root": "data.path",
    "data_cfg.dataset_partition": "data.partition",
    "data_cfg.num_workers": "data.workers",
    "optimizer_cfg.lr": "optimizer.lr",
    "optimizer_cfg.weight_decay": "optimizer.weight_decay",
    "trainer_cfg.total_iter": "schedule.steps",
    "trainer_cfg.save_iter": "saving.every",
    "trainer_cfg.log_iter": "saving.log_every",
    "trainer_cfg.sync_BN": "machine.sync_batch_norm",
}
# What a key has where a file does not name it.
_DEFAULTS = {
    "optimizer_cfg.lr": 0.1,
    "optimizer_cfg.momentum": 0.9,
    "optimizer_cfg.solver": "SGD",
    "optimizer_cfg.weight_decay": 0.0005,
    "scheduler_cfg.gamma": 0.1,
    "scheduler_cfg.milestones": [20_000, 40_000, 60_000],
    "scheduler_cfg.scheduler": "MultiStepLR",
    "trainer_cfg.enable_float16": True,
    "trainer_cfg.log_iter": 100,
    "trainer_cfg.save_iter": 2_000,
    "trainer_cfg.sync_BN": False,
    "trainer_cfg.total_iter": 80_000,
    "trainer_cfg.with_test": False,
    "trainer_cfg.sampler.batch_size": [8, 16],
    "trainer_cfg.sampler.frames_num_fixed": 30,
    "trainer_cfg.sampler.frames_skip_num": 0,
    "trainer_cfg.sampler.sample_type": "fixed_unordered",
}
# Why a key is not taken; a name stands for all that is below it.
_REASONS = {
    "data_cfg.cache": "files are read when they are needed; `hstl-fast prepare` packs them into one that is fast",
    "data_cfg.remove_no_gallery": "the protocol decides on probes without a partner",
    "data_cfg.test_dataset_name": "the test people are those of the partition",
    "data_cfg.dataset_name": "it is none of the published data sets; --preset names the network",
    "evaluator_cfg.enable_float16": "embeddings for an evaluation are computed in float32",
    "evaluator_cfg.enable_distributed": "one process evaluates",
    "evaluator_cfg.eval_func": "the protocol is that of the preset, or evaluation.protocol",
    "evaluator_cfg.restore_hint": "the network that is trained is evaluated, or any by `hstl-fast evaluate`",
    "evaluator_cfg.sampler": "batches of an evaluation follow from the lengths of whole sequences in order",
    "evaluator_cfg.cross_view_gallery": "`hstl-fast evaluate --cross-view` evaluates so",
    "evaluator_cfg": "an evaluation needs no more than data, protocol and metric",
    "loss_cfg.log_prefix": "the names in the log are fixed",
    "loss_cfg.log_accuracy": "the log has losses only",
    "loss_cfg.type": "there are the triplet loss and the cross entropy, each once",
    "loss_cfg": "it belongs to no loss that is taken",
    "model_cfg.model": "the network is HSTL as network.preset or network.file describes it",
    "model_cfg.class_num": "the number of classes is that of the training people",
    "model_cfg": "the network is the one of network.preset or network.file",
    "optimizer_cfg.solver": "optimizer.name is adam or sgd",
    "optimizer_cfg.momentum": "Adam has none",
    "scheduler_cfg": "the learning rate changes at schedule.milestones and in schedule.warmup only",
    "trainer_cfg.fix_BN": "batch norm is always trained",
    "trainer_cfg.fix_layers": "all layers are trained",
    "trainer_cfg.find_unused_parameters": "parameters without gradients are known",
    "trainer_cfg.optimizer_reset": "a training from network.start begins with a new optimiser",
    "trainer_cfg.scheduler_reset": "a training from network.start begins its schedule anew",
    "trainer_cfg.restore_ckpt_strict": "the weights of network.start have to fit",
    "trainer_cfg.restore_hint": "a training goes on from the newest checkpoint in its folder by itself",
    "trainer_cfg.save_name": "--output names the folder",
    "trainer_cfg.sampler.batch_shuffle": "every batch is drawn anew",
    "trainer_cfg.sampler.frames_num_max": "all sequences of a batch have batch.frames frames",
    "trainer_cfg.sampler.frames_num_min": "all sequences of a batch have batch.frames frames",
    "trainer_cfg.sampler.sample_type": "batch.frames frames of a sequence are taken, in order",
    "trainer_cfg.sampler.type": "batches have P people with K sequences of each",
    "trainer_cfg.transform": "data.augmentation has random changes of its own",
}
_NO_SUCH_THING = "there is no such setting"


class Imported(NamedTuple):
    """The content of a file of OpenGait.

    Attributes:
        values: Values by the paths of their fields.
        not_taken: A sentence for each key that is not taken.
    """

    values: dict[str, Given]
    not_taken: tuple[str, ...]


def is_opengait(document: Document) -> bool:
    """Return whether a YAML file is one of OpenGait.

    Args:
        document: The file.

    Returns:
        Whether a section has a name that OpenGait gives.
    """
    return any(section in document.content for section in SECTIONS)


def opengait_values(document: Document) -> Imported:
    """Take what means the same out of a file of OpenGait.

    A key that the file does not have counts as OpenGait's default for it, except in `data_cfg` and `evaluator_cfg`.

    Args:
        document: The file.

    Returns:
        The values, and what is not taken.

    Raises:
        ValueError: It is no file of OpenGait, or a value that is taken has a wrong type; the message has the line.
    """
    if not is_opengait(document):
        raise ValueError(
            f"{document.source}: expected sections of OpenGait such as trainer_cfg, got "
            f"{', '.join(document.content) or 'none'}"
        )
    return _Importer(document).imported()


class _Importer:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._left = dict(_leaves(document.content, ""))
        self._values: dict[str, Given] = {}

    def imported(self) -> Imported:
        for key, field in _SAME.items():
            self._take(key, field)
        self._data()
        self._losses()
        self._optimizer()
        self._schedule()
        self._batch()
        self._trainer()
        self._drop_what_is_so_anyway()
        sentences = [f"{key}={_written(value)}: {_reason(key)}" for key, value in self._left.items()]
        return Imported(self._values, tuple(sentences))

    def _take(self, key: str, field: str, default: Any = None) -> None:
        """Take a value as it is."""
        given = self._given(key, default)
        if given is not None:
            self._values[field] = given

    def _given(self, key: str, default: Any = None) -> Given | None:
        """Take a key out of what is left; its default where the file does not have it."""
        if key in self._left:
            return Given(self._left.pop(key), self._document.where(key))
        default = _DEFAULTS.get(key, default)
        return None if default is None else Given(default, f"{self._document.source}, OpenGait's default")

    def _look(self, key: str) -> str:
        """The text of a value, which stays to be taken."""
        return str(self._left.get(key, _DEFAULTS.get(key)))

    def _read(self, key: str, annotation: str, default: Any = None) -> Any:
        """Take a value and convert it; None where there is none."""
        given = self._given(key, default)
        if given is None:
            return None
        try:
            return typed(key, annotation, given.value)
        except ConfigError as error:
            raise ValueError(located(given.where, str(error))) from None

    def _set(self, field: str, value: Any, key: str) -> None:
        self._values[field] = Given(value, self._document.where(key))

    def _data(self) -> None:
        key = "data_cfg.dataset_name"
        name = "".join(letter for letter in self._look(key).lower() if letter.isalnum())
        if name in _PRESETS:
            self._left.pop(key)
            self._set("network.preset", _PRESETS[name], key)
        key = "evaluator_cfg.metric"
        if self._look(key) in _METRICS:
            self._set("evaluation.metric", _METRICS[str(self._left.pop(key))], key)
        key = "evaluator_cfg.sampler.frames_all_limit"
        if key in self._left and (limit := self._read(key, "int")) > 0:
            self._set("evaluation.max_frames", limit, key)

    def _losses(self) -> None:
        losses = self._document.content.get("loss_cfg")
        if losses is None:
            losses = {"type": "TripletLoss"}
        is_list = isinstance(losses, list)
        names = [f"loss_cfg[{i}]" for i in range(len(losses))] if is_list else ["loss_cfg"]
        found = {}
        for name, loss in zip(names, losses if is_list else [losses]):
            kind = str(loss.get("type")) if isinstance(loss, Mapping) else ""
            if kind in ("TripletLoss", "CrossEntropyLoss") and kind not in found:
                found[kind] = name
                self._left.pop(f"{name}.type", None)
        self._triplet(found.get("TripletLoss"))
        self._cross_entropy(found.get("CrossEntropyLoss"))

    def _triplet(self, name: str | None) -> None:
        if name is None:
            self._set("loss.triplet", 0.0, "loss_cfg")
            return
        self._take(self._weight(name), "loss.triplet", 1.0)
        self._take(f"{name}.margin", "loss.margin", 0.2)

    def _cross_entropy(self, name: str | None) -> None:
        if name is None:
            self._set("loss.cross_entropy", 0.0, "loss_cfg")
            return
        self._take(self._weight(name), "loss.cross_entropy", 1.0)
        self._take(f"{name}.scale", "loss.scale", 16.0)
        is_smooth = self._read(f"{name}.label_smooth", "bool", True)
        self._take(f"{name}.eps", "loss.smoothing", 0.1)
        if not is_smooth:
            self._set("loss.smoothing", 0.0, f"{name}.label_smooth")

    def _weight(self, name: str) -> str:
        """The key of a loss's weight, which older files call in the plural."""
        old = f"{name}.loss_term_weights"
        return old if old in self._left else f"{name}.loss_term_weight"

    def _optimizer(self) -> None:
        key = "optimizer_cfg.solver"
        solver = _SOLVERS.get(self._look(key))
        if solver is not None:
            self._left.pop(key, None)
            self._set("optimizer.name", solver, key)
        if solver == "sgd":
            self._take("optimizer_cfg.momentum", "optimizer.momentum")

    def _schedule(self) -> None:
        key = "scheduler_cfg.scheduler"
        if self._look(key) != "MultiStepLR":
            self._set("schedule.milestones", [], key)
            return
        self._left.pop(key, None)
        self._take("scheduler_cfg.gamma", "schedule.factor")
        self._take("scheduler_cfg.milestones", "schedule.milestones")

    def _batch(self) -> None:
        key = "trainer_cfg.sampler.batch_size"
        size = self._given(key)
        if size is not None:
            if not isinstance(size.value, list) or len(size.value) != 2:
                raise ValueError(f"{size.where}: {key}: expected people and sequences of each, such as [8, 16]")
            self._values["batch.people"], self._values["batch.sequences"] = (
                Given(each, size.where) for each in size.value
            )
        frames = self._read("trainer_cfg.sampler.frames_num_fixed", "int")
        skipped = 0
        kind = "trainer_cfg.sampler.sample_type"
        if self._look(kind) == "fixed_ordered":
            self._left.pop(kind)
            skipped = self._read("trainer_cfg.sampler.frames_skip_num", "int")
        elif kind not in self._left:
            self._left[kind] = Plain(_DEFAULTS[kind])
        self._set("batch.frames", frames, "trainer_cfg.sampler.frames_num_fixed")
        self._set("batch.stretch", frames + skipped, "trainer_cfg.sampler.frames_num_fixed")

    def _trainer(self) -> None:
        key = "trainer_cfg.enable_float16"
        self._set("machine.precision", "float16" if self._read(key, "bool") else "float32", key)
        key = "trainer_cfg.with_test"
        if self._read(key, "bool"):
            self._values["evaluation.every"] = self._values["saving.every"]._replace(where=self._document.where(key))
        key = "trainer_cfg.restore_hint"
        hint = self._left.get(key)
        if isinstance(hint, str) and not hint.isdecimal() and not is_null(hint):
            self._take(key, "network.start")
        self._transforms()

    def _transforms(self) -> None:
        """Take the mirroring out of the list of transforms; the cut of the columns is made anyway."""
        for key in [key for key in self._left if key.startswith("trainer_cfg.transform") and key.endswith(".type")]:
            name, above = self._left[key], key.removesuffix(".type")
            if name == "RandomHorizontalFlip":
                self._left.pop(key)
                self._take(f"{above}.prob", "data.augmentation.flip", 0.5)
            elif name == "BaseSilCuttingTransform" or (name == "Compose" and above.count("[") == 1):
                self._left.pop(key)

    def _drop_what_is_so_anyway(self) -> None:
        """Leave out of the sentences what has the same effect here."""
        same = {
            "evaluator_cfg.sampler.sample_type": ("all_ordered",),
            "trainer_cfg.restore_hint": ("0",),
            "trainer_cfg.sampler.type": ("TripletSampler",),
            "model_cfg.model": ("HSTL",),
        }
        for key, values in same.items():
            if self._left.get(key) in values:
                self._left.pop(key)
        for key in [key for key in self._left if key.startswith("evaluator_cfg.transform")]:
            if self._left[key] == "BaseSilCuttingTransform":
                self._left.pop(key)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Values by their paths; a list of plain values is one."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(each, (Mapping, list)) for each in value):
        for i, each in enumerate(value):
            yield from _leaves(each, f"{path}[{i}]")
    else:
        yield path, value


def _reason(key: str) -> str:
    """Why a key is not taken: the reason of the longest name that it is or that it is below."""
    bare = "".join(part.partition("]")[2] if i else part for i, part in enumerate(key.split("[")))
    parts = bare.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    return next((_REASONS[name] for name in names if name in _REASONS), _NO_SUCH_THING)


def _written(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_written(each) for each in value)}]"
    if isinstance(value, str) and not isinstance(value, Plain):
        return repr(value)
    return "{}" if isinstance(value, Mapping) else str(value)
