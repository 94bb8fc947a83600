"""TaskRes as a formula: the logits under a residual, and their derivative written by hand."""

import math

import numpy as np

from .._formulas import scaled_classifier, task_residual, unit


def taskres_logits(z, *, t, alpha, scale, x=None, x_image=None):
    """Logits (n, K) of image rows z (n, D) under t' = t + αx, with t and x (K, D).

    With a residual on the image, x_image (D,), z are raw rows; without one, unit rows. Of C
    candidates at once, x (C, K, D) and alpha (C, 1, 1), they are (C, n, K).
    """
    if x_image is not None:
        z = unit(task_residual(z, x_image, alpha))
    t = t if x is None else task_residual(t, x, alpha)
    return z @ scaled_classifier(t, scale).mT


def taskres_gradient(z, y, share, *, t, alpha, scale, x):
    """Weighted cross-entropy of :func:`taskres_logits`, and its derivatives by x and alpha.

    Written by hand for the residual on the text: two matrix products of B·K·D, and three passes
    over arrays of K·D. With P = (softmax − onehot) · share, s the scale and L the logits, the
    derivative by t' is, row by row, ``s Pᵀz / ‖t'‖ − (P∘L summed over the batch) t' / ‖t'‖²``.

    Of C candidates that see the same batch, the losses are summed: Adam takes each element by
    itself, so that this trains each candidate as its own loss would.

    Parameters
    ----------
    z : tensor of shape (B, D)
        Unit image rows.
    y : tensor of shape (B,)
        Classes of the rows.
    share : tensor of shape (B,)
        Share of each row in the loss: 1 / B, times its weight.
    t : tensor of shape (K, D)
        Base.
    alpha : tensor of shape (1, 1), or (C, 1, 1)
        Scale of the residual; where it requires a gradient, that is returned, too.
    scale : float
        Logit scale.
    x : tensor of shape (K, D), or (C, K, D)
        Residual.

    Returns
    -------
    loss : tensor of shape ()
    logits : tensor of shape (B, K), or (C, B, K)
        Those of :func:`taskres_logits`.
    gradients : dict of str to tensor
        ``x``, and ``alpha`` where that is learned.
    """
    import torch

    learns_alpha = alpha.requires_grad
    moved = task_residual(t, x, alpha)  # t', ([C,] K, D)
    inverse = torch.linalg.vector_norm(moved, dim=-1, keepdim=True).reciprocal_()  # 1 / ‖t'‖
    inverse.nan_to_num_(nan=math.nan, posinf=1)  # a zero row stays zero, as in `unit`
    factor = inverse * scale
    # The first product. Classes come first, ([C,] K, B), since sums along rows in memory are slow.
    logits = (moved @ z.T).to(z.dtype).mul_(factor)
    errors = logits.log_softmax(dim=-2)
    truth = y.expand(*errors.shape[:-2], 1, -1)
    log_p_truth = errors.gather(-2, truth)
    loss = -(log_p_truth * share).sum()
    # (P − onehot) · share, where p − 1 of the true class is taken without cancellation.
    errors.exp_().scatter_(-2, truth, log_p_truth.expm1_()).mul_(share)
    # What the second product holds along t', where a step would change nothing: ΣP∘L / ‖t'‖².
    along = (errors * logits).sum(dim=-1, keepdim=True).mul_(inverse).mul_(inverse)
    # The second product, s Pᵀz / ‖t'‖, less that: the derivative by t'.
    slope = (errors.mul_(factor) @ z).to(z.dtype).addcmul_(moved, along, value=-1)
    gradients = {"alpha": (slope * x).sum(dim=(-2, -1), keepdim=True)} if learns_alpha else {}
    return loss, logits.mT, {"x": slope.mul_(alpha), **gradients}  # t' = t + αx


def start(t, scale, alpha, residual, learn_alpha):
    """Return the arrays to learn, at their start, and the constants of :func:`taskres_logits`.

    Parameters
    ----------
    t : ndarray of shape (K, D)
        Base.
    scale, alpha : float
        Logit scale, and the residual's scale or its start.
    residual : {"text", "image", "both"}
        What the residual is put on.
    learn_alpha : bool
        Whether alpha is learned, too.

    Returns
    -------
    learned, constants : dict of str to ndarray or float
    """
    learned = {"x": np.zeros_like(t), "x_image": np.zeros_like(t[0])}
    if residual != "both":
        del learned["x_image" if residual == "text" else "x"]
    constants = {"t": t, "scale": scale}
    (learned if learn_alpha else constants)["alpha"] = np.full((1, 1), alpha, dtype=np.float64)
    return learned, constants
