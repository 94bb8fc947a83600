"""What "auto" stands for: the epochs and learning rates of the published recipe."""

from .selection import images_per_class

#: Steps of the longest published recipe: ImageNet, 16 shots, 200 epochs of 62.
_MOST_STEPS = 12_400


def auto_max_epochs(y, batch_size, *, many):
    """Epochs: 100 up to 4 images a class (median), else `many`, at most 12 400 steps.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
        Class of each row, 0 to n_classes - 1.
    batch_size : int
        Rows a step.
    many : int
        Epochs where there are more than 4 images a class.
    """
    steps = max(1, len(y) // batch_size)
    return min(100 if images_per_class(y) <= 4 else many, max(1, _MOST_STEPS // steps))


def auto_lr(n_classes):
    """Learning rate of the published recipe: 2e-3, for 1000 classes (ImageNet) and more 2e-4."""
    return 2e-3 if n_classes < 1000 else 2e-4
