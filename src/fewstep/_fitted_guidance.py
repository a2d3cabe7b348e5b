"""The guidance that a solver was fitted for: options of a field, words, and settings of other frameworks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._fitted_for import shown

__all__ = ["INSIDE", "comfyui_settings", "fitted_guidance", "in_words", "pipeline_arguments"]

#: Name of the scale of a network that guides itself.
INSIDE = "guidance inside the network"

#: Pipelines with another argument for the scale, by the first letters of their networks: its name, and the
#: scale less its value.
_PIPELINES = {
    "Flux": ("true_cfg_scale", 0),
    "HunyuanVideo": ("true_cfg_scale", 0),
    "QwenImage": ("true_cfg_scale", 0),
    "ZImage": ("guidance_scale", 1),
}


def fitted_guidance(facts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of guidance that a field does not have by default.

    All that tells of a solver's guidance reads it here, so that no option is forgotten in one place.

    Args:
        facts: those of :meth:`fewstep.Field.describe`, which solvers have as ``fitted_for``.

    Returns:
        Values by their names in :class:`fewstep.Field`, ``guidance`` first; for ``guide`` the name of a type.
        ``scale`` alone for a network that guides itself, and nothing without guidance.
    """
    facts = facts or {}
    if facts.get("guidance") in (None, 1):
        return {key: facts[key] for key in ("scale",) if facts.get(key) is not None}
    found = {"guidance": facts["guidance"]}
    if facts.get("guide") is not None:
        found["guide"] = facts["guide"]
    if list(facts.get("guidance_interval") or (0, 1)) != [0, 1]:
        found["guidance_interval"] = tuple(facts["guidance_interval"])
    if facts.get("guidance_rescale"):
        found["guidance_rescale"] = facts["guidance_rescale"]
    return found


def in_words(facts: Mapping[str, Any] | None) -> str:
    """Return ``"guidance 3, guidance_rescale 0.7"`` for the facts of a field; nothing without guidance."""
    found = fitted_guidance(facts).items()
    return ", ".join(f"{INSIDE if key == 'scale' else key} {shown(value)}" for key, value in found)


def pipeline_arguments(facts: Mapping[str, Any] | None) -> str:
    """Return arguments of a pipeline of diffusers, ``"guidance_scale=3, guidance_rescale=0.7"``.

    A fit without guidance has a scale, too, as pipelines guide by default. QwenImage always keeps the norm.
    """
    if not facts:
        return ""
    found, network = fitted_guidance(facts), str(facts.get("model"))
    name, less = next((p for key, p in _PIPELINES.items() if network.startswith(key)), ("guidance_scale", 0))
    arguments = {name: found.get("guidance", 1)}
    if less:
        arguments[name] -= less
    if "scale" in found:
        arguments["guidance_scale"] = found["scale"]
    rescale = found.get("guidance_rescale", 0)
    if network.startswith("Lumina2"):
        arguments["cfg_normalization"] = rescale == "norm"
    elif rescale not in (0, "norm"):
        arguments["guidance_rescale"] = rescale
    return ", ".join(f"{key}={_number(value)}" for key, value in arguments.items())


def comfyui_settings(facts: Mapping[str, Any] | None) -> str:
    """Return settings in ComfyUI, ``"cfg 3, node RescaleCFG with multiplier 0.7"``; nothing without facts."""
    if not facts:
        return ""
    found = fitted_guidance(facts)
    settings = [f"cfg {shown(found.get('guidance', 1))}"]
    if "scale" in found:
        settings.append(f"the guidance of the model {shown(found['scale'])}")
    rescale = found.get("guidance_rescale")
    if rescale == "norm":
        settings.append("for whose norm there is no node, so that samples differ")
    elif rescale is not None:
        # The node turns what the model denoised into v predictions, whatever the network predicts.
        fitted = facts.get("prediction", "velocity")
        other = "" if fitted == "v" else f" (which rescales v, and the fit {fitted}, so that samples differ)"
        settings.append(f"node RescaleCFG with multiplier {shown(rescale)}{other}")
    return ", ".join(settings)


def _number(value: Any) -> str:
    """Return a number as Python reads it back, without the zeros of a whole one."""
    short = shown(value)
    return short if isinstance(value, float) and float(short) == value else repr(value)
