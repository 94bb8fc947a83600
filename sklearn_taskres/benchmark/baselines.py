"""What a user would train instead of TaskResClassifier: a plain torch loop, skorch, scikit-learn.

All except the logistic regression learn a residual by the same recipe on the same rows. They are
written as their libraries' manuals would have it, for `benchmark speed` to compare with.
"""

import torch
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch.nn.functional import cross_entropy, normalize

from .. import TaskResClassifier
from .._device import resolve_device
from .._formulas import learning_rate

BATCH_SIZE, LR, WEIGHT_DECAY, SCALE = 256, 2e-3, 5e-4, 100.0


def taskres(task, max_epochs, device=None, precision="auto"):
    """Return the class weights (K, D) that TaskResClassifier learns."""
    clf = TaskResClassifier(
        task.t, lr=LR, max_epochs=max_epochs, device=device, precision=precision, random_state=0
    )
    return clf.fit(task.X, task.y).coef_


def plain_loop(task, max_epochs, device=None):
    """Return the same, learned by a loop over batches with autograd and Adam."""
    device = resolve_device(device)
    z = normalize(torch.tensor(task.X, device=device), dim=1)
    t, y = torch.tensor(task.t, device=device), torch.tensor(task.y, device=device)
    x = torch.zeros_like(t, requires_grad=True)
    adam = torch.optim.Adam([x], lr=LR, weight_decay=WEIGHT_DECAY)
    generator, size = torch.Generator().manual_seed(0), min(BATCH_SIZE, len(y))
    for epoch in range(max_epochs):
        adam.param_groups[0]["lr"] = learning_rate(epoch, max_epochs, LR)
        order = torch.randperm(len(y), generator=generator).to(device)
        for start in range(0, len(y) - size + 1, size):
            rows = order[start : start + size]
            logits = SCALE * z[rows] @ normalize(t + 0.5 * x, dim=1).T
            adam.zero_grad()
            cross_entropy(logits, y[rows]).backward()
            adam.step()
    return normalize(t + 0.5 * x, dim=1).detach().cpu().numpy()


class Head(torch.nn.Module):
    """TaskRes as a module for skorch."""

    def __init__(self, t, alpha=0.5):
        super().__init__()
        self.alpha, self.x = alpha, torch.nn.Parameter(torch.zeros_like(t))
        self.register_buffer("t", t)

    def weights(self):
        """Class weights (K, D)."""
        return normalize(self.t + self.alpha * self.x, dim=1)

    def forward(self, z):
        """Logits (n, K) of rows z (n, D)."""
        return SCALE * normalize(z, dim=1) @ self.weights().T


def skorch_net(task, max_epochs, device=None):
    """Return a skorch net of the head, not fitted."""
    return NeuralNetClassifier(
        Head,
        module__t=torch.tensor(task.t),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=WEIGHT_DECAY,
        lr=LR,
        max_epochs=max_epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        iterator_train__drop_last=len(task.y) > 2 * BATCH_SIZE,
        callbacks=[
            LRScheduler("LambdaLR", lr_lambda=lambda e: learning_rate(e, max_epochs, LR) / LR)
        ],
        train_split=None,
        device=resolve_device(device),
        verbose=0,
    )


def default_skorch(task, max_epochs, device=None):
    """Return the class weights that the net learns."""
    net = skorch_net(task, max_epochs, device).fit(task.X, task.y)
    return net.module_.weights().detach().cpu().numpy()


def logistic_regression(task):
    """Return the class weights of scikit-learn's logistic regression on the embeddings."""
    return LogisticRegression(max_iter=1000).fit(task.X, task.y).coef_
