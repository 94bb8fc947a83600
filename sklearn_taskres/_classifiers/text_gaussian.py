"""Gaussian classes whose means are expected where the text says: a linear map in closed form.

No paper that we know has it. The relatives are GDA (arXiv:2402.04087), which has no prior, and the
Bayesian linear discriminant with a conjugate prior. The formulas come first, in the order in which
they are computed; :func:`text_gaussian` puts them together.

Rows z are unit, x̄_c (K, D) are the means of the images of each class, n_c their numbers, t_c raw
class embeddings. The estimate is torch's, whose eigendecomposition took half of NumPy's time
(512 x 512 on an AMD EPYC); what is kept of it are NumPy's arrays, for prediction without torch. The
formulas take both.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._formulas import unit

#: What names are worth, unless the images say otherwise: as many images per class.
DEFAULT_STRENGTH = 8.0
#: Share of the prior's covariance that classes with similar names have in common.
_SIMILARITY = 0.5


def text_directions(t):
    """If the text expects the classes about their centre, t̃ (K, D), and that centre (D,).

    Images and texts lie in two cones of the sphere: each side is centred by itself.
    """
    rows = unit(t)
    centre = rows.mean(axis=0)
    return rows - centre, centre


def fitted_scale(x, directions):
    """Least-squares factor, not negative, that brings directions (K, D) to x (K, D)."""
    size = (directions * directions).sum()
    return max(0.0, float((x * directions).sum() / size)) if size > 0 else 0.0


def prior_covariance(directions, others):
    """Covariance that two sets of classes share through their names, (K, K'): ρ cos(t̃, t̃').

    A class shares all of its variance, 1, with itself: to the diagonal belongs 1 - ρ more.
    """
    return _SIMILARITY * unit(directions) @ unit(others).T


def observed_precision(covariance, counts, strength):
    """Q = (C + diag(1/n))⁻¹ for C = covariance / κ, and Q / κ, both (K, K); κ is 0 to infinite.

    Takes tensors. With s = κ / (1 + κ) both are multiples of ((1 - s) covariance + s diag(1/n))⁻¹:
    by s, and by 1 - s.
    """
    share = 1.0 if np.isinf(strength) else strength / (1 + strength)
    inverse = ((1 - share) * covariance + share * (1 / counts).diag()).inverse()
    return share * inverse, (1 - share) * inverse


@dataclass
class Covariance:
    """The covariance Σ of images within a class, (D, D), by its eigenvectors."""

    #: Eigenvalues (D,), positive, and eigenvectors (D, D), a column each: arrays, or tensors.
    values: Any
    vectors: Any

    def turned(self, rows):
        """Rows (K, D) along the eigenvectors: Σ^½ times these rows, whitened."""
        return rows @ self.vectors

    def whitened(self, rows):
        """Rows (K, D) in coordinates in which Σ is the identity."""
        return self.turned(rows) / self.values**0.5

    def weights(self, whitened):
        """Weights (K, D) whose products with rows are those of whitened rows with `whitened`."""
        return (whitened / self.values**0.5) @ self.vectors.T


@dataclass
class TextGaussian:
    """The classifier of Gaussian classes with a text prior: one linear map of unit rows."""

    #: Weights W (K, D) and intercepts b (K,): logits are z Wᵀ + b.
    weights: np.ndarray
    intercept: np.ndarray
    #: Prior strength κ, given or chosen.
    strength: float
    #: What held-out images and classes without images need: Σ, the centres of images and text, the
    #: scale of the prior's directions, t̃ of the classes with images, and their Q (x̄ - g - m) / κ,
    #: whitened.
    sigma: Covariance
    image_centre: np.ndarray
    text_centre: np.ndarray
    scale: float
    directions: np.ndarray
    pull: np.ndarray

    def unseen(self, t):
        """Weights and intercepts of classes without images, from their raw embeddings (n, D)."""
        directions = unit(t) - self.text_centre
        means = self.scale * self.sigma.turned(directions)
        means += prior_covariance(directions, self.directions) @ self.pull
        return linear_discriminants(means, self.sigma, self.image_centre)


def linear_discriminants(means, sigma, centre):
    """W = μΣ⁻¹ and b = -½ μΣ⁻¹μ - W·g of whitened class means μΣ^-½ about the centre g (D,)."""
    weights = sigma.weights(means)
    return weights, -(means * means).sum(axis=1) / 2 - weights @ centre


def text_gaussian(moments, t, strength):
    """Estimate Gaussian classes with one covariance whose means have a prior at the text.

    Parameters
    ----------
    moments : ClassMoments
        Counts n, means x̄ and scatter of the images.
    t : ndarray of shape (K, D)
        Raw class embeddings.
    strength : float
        Prior strength κ: 0 leaves the class means alone, infinity the text alone.

    Returns
    -------
    TextGaussian or None
        None if images neither scatter within classes nor deviate from the text, so that there is
        no covariance.
    """
    import torch

    from .._device import resolve_device

    total, number = float(moments.counts.sum()), np.finfo(moments.means.dtype)
    cpu = resolve_device("cpu")  # which also keeps a child that forks later from waiting forever
    counts, means, scatter, t = (torch.tensor(array, device=cpu) for array in (*moments, t))
    centre = means.mean(dim=0)
    x = means - centre
    directions, text_centre = text_directions(t)
    prior = prior_covariance(directions, directions)
    prior.diagonal().add_(1 - _SIMILARITY)
    Q, pull = observed_precision(prior, counts, strength)
    deviation = x - fitted_scale(x, directions) * directions
    scatter += deviation.T @ (Q @ deviation)
    ridge = scatter.trace() / total
    if ridge <= number.eps:
        return None
    scatter.diagonal().add_(ridge)
    values, vectors = torch.linalg.eigh(scatter / total)
    # Contiguous, as they come back from a file: products are then the same to the bit.
    values, vectors = values.clamp(number.tiny), vectors.contiguous()
    sigma = Covariance(values, vectors)
    # Whitened, the prior's means are t̃ times a scale; without whitening Σ^½ t̃.
    x, turned = sigma.whitened(x), sigma.turned(directions)
    scale = fitted_scale(x, turned)
    pull = pull @ (x - scale * turned)  # of what the prior leaves
    weights, intercept = linear_discriminants(scale * turned + prior @ pull, sigma, centre)
    return TextGaussian(
        weights=weights.numpy(),
        intercept=intercept.numpy(),
        strength=strength,
        sigma=Covariance(values.numpy(), vectors.numpy()),
        image_centre=centre.numpy(),
        text_centre=text_centre.numpy(),
        scale=scale,
        directions=directions.numpy(),
        pull=pull.numpy(),
    )
