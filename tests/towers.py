"""What reaches the towers of a CLIP, seen through torch's own hooks."""

import contextlib

import open_clip
import torch
from torch.nn.modules import module as hooks


@contextlib.contextmanager
def watched(images=None, texts=None, parameter=None):
    """Call functions while models are made and used; what they raise ends the call of the model.

    Parameters
    ----------
    images, texts : callable or None
        Called with the size of each batch, before it is encoded.
    parameter : callable or None
        Called for each parameter of a model that is made.
    """

    def before_forward(module, arguments):
        if images is not None and isinstance(module, open_clip.transformer.VisionTransformer):
            images(len(arguments[0]))
        if texts is not None and isinstance(module, torch.nn.Embedding):
            texts(len(arguments[0]))

    def before_parameter(*_):
        if parameter is not None:
            parameter()

    handles = [
        hooks.register_module_forward_pre_hook(before_forward),
        hooks.register_module_parameter_registration_hook(before_parameter),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
