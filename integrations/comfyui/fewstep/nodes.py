"""A node that reads a solver file and returns its SAMPLER and SIGMAS.

What it computes is in ``fewstep.adapters.comfyui``.
"""

import logging
import os

import folder_paths
from comfy.samplers import KSAMPLER
from comfy_api.latest import io

from fewstep.adapters import comfyui

__all__ = ["FewStepSolver"]

FOLDER = "fewstep"
folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def _files() -> list[str]:
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".json")]


class FewStepSolver(io.ComfyNode):
    """A solver that was fitted to the MODEL, for SamplerCustom and SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return inputs and outputs."""
        return io.Schema(
            node_id="FewStepSolver",
            display_name="Fewstep Solver (fitted for one model and cfg)",
            category="fewstep",
            description=(
                "Reads a solver that fewstep fitted to this model, at one scale of guidance: set cfg to that "
                "scale, which the log names. Use SAMPLER and SIGMAS together."
            ),
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("solver", options=_files(), tooltip="A solver file in models/fewstep."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1, the share of the calls, the last ones, that an image is noised for.",
                ),
                io.Int.Input(
                    "nfe",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Network calls, for a file with solvers for several numbers; 0 for the only one.",
                ),
                io.Float.Input(
                    "guidance",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="For a file with solvers for several scales, the one in cfg; 0 for the only one.",
                ),
            ],
            outputs=[io.Sampler.Output(), io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, solver, denoise=1.0, nfe=0, guidance=0.0) -> io.NodeOutput:
        """Return the SAMPLER and the SIGMAS."""
        path = folder_paths.get_full_path(FOLDER, solver)
        if path is None:
            folders = " or ".join(folder_paths.get_folder_paths(FOLDER))
            raise FileNotFoundError(f"solver: there is no file {solver!r} in {folders}; put it there.")
        chosen = comfyui.read(path, nfe or None, guidance or None)
        made = comfyui.sampler(chosen, model.get_model_object("model_sampling"))
        logging.info(comfyui.about(chosen))
        return io.NodeOutput(KSAMPLER(made), made.entered(denoise))

    @classmethod
    def fingerprint_inputs(cls, solver, **inputs):
        """Return what changes when the file does, so that it is read again."""
        path = folder_paths.get_full_path(FOLDER, solver)
        return None if path is None else os.stat(path).st_mtime_ns
