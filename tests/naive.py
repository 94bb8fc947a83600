"""TaskRes written down as plainly as possible, from the paper and its recipe: the reference."""

import math

import numpy as np
import torch


def naive_lr(epoch, n_epochs, base):
    return 1e-5 if epoch == 0 else 0.5 * base * (1 + math.cos(math.pi * (epoch - 1) / n_epochs))


def naive_batches(n_rows, batch_size, rng):
    """One epoch: shuffled, the incomplete last batch dropped; one batch if there are few rows."""
    if n_rows <= batch_size:
        return [np.arange(n_rows)]
    order = rng.permutation(n_rows)
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(n_rows // batch_size)]


def naive_taskres(
    X,
    y,
    t,
    *,
    alpha=0.5,
    learn_alpha=False,
    residual="text",
    scale=100.0,
    lr=2e-3,
    n_epochs=100,
    batch_size=256,
    weight_decay=5e-4,
    sample_weight=None,
    seed=0,
):
    """Return a dict of x, x_image, alpha, coef, losses and lrs after a plain autograd loop."""
    z, t = torch.tensor(X), torch.tensor(t)
    targets = torch.tensor(y)
    weight = torch.ones(len(y), dtype=z.dtype)
    if sample_weight is not None:
        weight = torch.tensor(sample_weight / np.mean(sample_weight), dtype=z.dtype)
    x = torch.zeros_like(t, requires_grad=residual != "image")
    x_image = torch.zeros_like(t[:1], requires_grad=residual != "text")
    a = torch.tensor(alpha, dtype=z.dtype, requires_grad=learn_alpha)
    learned = [p for p in (x, x_image, a) if p.requires_grad]
    adam = torch.optim.Adam(learned, lr=lr, weight_decay=weight_decay)
    rng = np.random.RandomState(seed)
    losses, lrs = [], []
    views, z = (z, None) if z.ndim == 3 else (None, z)
    for epoch in range(n_epochs):
        for group in adam.param_groups:
            group["lr"] = naive_lr(epoch, n_epochs, lr)
        if views is not None:  # one view of each image, drawn anew
            z = torch.stack(
                [views[i, j] for i, j in enumerate(rng.randint(views.shape[1], size=len(y)))]
            )
        epoch_losses = []
        for rows in naive_batches(len(y), batch_size, rng):
            images = torch.nn.functional.normalize(z[rows] + a * x_image, dim=1)
            classes = torch.nn.functional.normalize(t + a * x, dim=1)
            logits = scale * images @ classes.T
            loss = torch.nn.functional.cross_entropy(logits, targets[rows], reduction="none")
            loss = (weight[rows] * loss).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            epoch_losses.append(loss.item())
        losses.append(np.mean(epoch_losses))
        lrs.append(adam.param_groups[0]["lr"])
    coef = scale * torch.nn.functional.normalize(t + a * x, dim=1)
    return {
        "x": x.detach().numpy(),
        "x_image": x_image.detach().numpy()[0],
        "alpha": a.item(),
        "coef": coef.detach().numpy(),
        "losses": losses,
        "lrs": lrs,
    }
