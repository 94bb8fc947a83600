"""torch's optimizers, without the records of each step that they keep for torch's profiler."""

import functools
import inspect

import torch


@functools.cache
def without_records(optimizer):
    """Return a subclass of a torch optimizer that takes the same steps and records none.

    torch makes them whether a profiler runs or not, which makes small fits longer.
    """
    take_step = torch.no_grad()(inspect.unwrap(optimizer.step))

    class Unrecorded(optimizer):  # type: ignore[misc, valid-type]
        def step(self, closure=None):
            return take_step(self, closure)

        def zero_grad(self, set_to_none=True):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

        @staticmethod
        def profile_hook_step(step):  # torch would put the record and its hooks around `step`
            return step

        def register_step_pre_hook(self, hook):
            raise NotImplementedError("Hooks of a step are not called: act in a callback instead.")

        register_step_post_hook = register_step_pre_hook

    return Unrecorded
