"""Which class a model's name leads to: a subclass of the backend's own, made on first use.

So everything that lmms-eval reads off a model is there, and its name stays its own.
"""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path

from lmms_eval.models.registry_v2 import ModelManifest, ModelRegistryV2

from hb_tta.errors import UserError
from hb_tta.integrations.lmms_eval.backend import AugmentedBackend, Flags
from hb_tta.settings.augmented import AugmentSettings
from hb_tta.shards import Shard

_bases: dict[str, str] = {}  # a name in this module → the path of the backend's own class


def override(
    models: set[str],
    settings: AugmentSettings,
    output_path: Path | None,
    shard: Shard | None = None,
) -> list[ModelManifest]:
    """Manifests that lead the models' names to augmented classes.

    Raises:
        UserError: lmms-eval has no such model, or another plugin would take it from us.
    """
    import hb_tta.tta.intercept  # noqa: F401  before a backend can bind transformers' generate

    AugmentedBackend.hb_flags = Flags(settings, output_path, shard)
    registry, later = _registry()
    manifests = []
    for model in sorted(models):
        try:
            found = registry.get_manifest(model)
        except ValueError:
            raise UserError(f"there is no model {model!r}: see `lmms-eval models`") from None
        if found.model_id in later:
            raise UserError(
                f"the package {later[found.model_id]!r} replaces the model {model!r} after hb-tta "
                "does: use `hb-tta lmms-eval` in place of `lmms-eval`"
            )
        manifests.append(
            ModelManifest(
                found.model_id,
                simple_class_path=_augmented(found.model_id, "simple", found.simple_class_path),
                chat_class_path=_augmented(found.model_id, "chat", found.chat_class_path),
            )
        )
    return manifests


def _registry() -> tuple[ModelRegistryV2, dict[str, str]]:
    """All models without ours, and those that other plugins put in place after us."""
    registry, later, after_us = ModelRegistryV2(), {}, False
    for manifest in import_module("lmms_eval.models")._build_builtin_manifests():
        registry.register_manifest(manifest)
    for entry in metadata.entry_points(group="lmms_eval.models"):
        if entry.value.split(":")[0] == __package__:
            after_us = True
            continue
        for manifest in registry._coerce_payload_to_manifests(entry.load()):
            registry.register_manifest(manifest, overwrite=True)
            if after_us:
                later[manifest.model_id] = entry.dist.name if entry.dist else entry.value
    return registry, later


def _augmented(model_id: str, kind: str, class_path: str | None) -> str | None:
    if class_path is None:
        return None
    name = f"{model_id}__{kind}"
    if _bases.get(name) != class_path:  # the name may have led to another class before
        globals().pop(name, None)
    _bases[name] = class_path
    return f"{__name__}.{name}"


def __getattr__(name: str) -> type:
    """The augmented class of a backend, made when lmms-eval first asks for it."""
    if name not in _bases:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _bases[name].rpartition(".")
    base = getattr(import_module(module), attribute)
    made = type(f"Augmented{base.__name__}", (AugmentedBackend, base), {"__module__": __name__})
    globals()[name] = made
    return made
