"""CLIPs with random weights: as slow and as large as trained ones, and nothing to download."""

import json
from pathlib import Path

#: Largest weight of a branch that does nothing before training, as those of ResNet and ConvNeXt.
_SWITCHED_OFF = 1e-4


def write_random_clip(folder, config, seed=0, **preprocessing):
    """Write a CLIP with random weights as open_clip's ``local-dir:`` reads it.

    Parameters
    ----------
    folder : path-like
        Where to; made if it is not there.
    config : dict or str
        open_clip model configuration, or the name of an architecture.
    seed : int, default=0
        Of the weights.
    **preprocessing
        open_clip preprocessing configuration, if it differs from the default.

    Returns
    -------
    str
        The `model_name` that loads it.
    """
    import torch
    from safetensors.torch import save_model

    from .._clip.backends.torch.pretrained import architecture_config, build_model

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(config, str):
        config = architecture_config(config)
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(folder / "open_clip_config.json")
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # zeros would hide a forgotten bias
                torch.nn.init.normal_(parameter, std=0.1)
            elif parameter.abs().max() < _SWITCHED_OFF:
                torch.nn.init.constant_(parameter, 0.5)
    save_model(model, str(folder / "open_clip_model.safetensors"))
    return f"local-dir:{folder}"
