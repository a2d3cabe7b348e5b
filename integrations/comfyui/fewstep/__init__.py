"""Nodes of ComfyUI for solvers of fewstep."""

from comfy_api.latest import ComfyExtension, io

from .nodes import FewStepSolver

__all__ = ["comfy_entrypoint"]


class FewStepExtension(ComfyExtension):
    """The nodes of this folder."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the nodes."""
        return [FewStepSolver]


async def comfy_entrypoint() -> FewStepExtension:
    """Return the extension; ComfyUI calls this."""
    return FewStepExtension()
