"""CoOp without a text tower, so that scikit-learn's checks, whose data no CLIP made, can run on it.

All of CoOpClassifier's own code runs, except the refusal of a base that is not text. In place of
the frozen tower stands g(v) = t + mean of v, with t the class means of the images.
"""

import torch

from sklearn_taskres._classifiers.coop import CoOpClassifier


class StandInTower:
    """What CoOp asks of a prompt tower, for class embeddings t (K, d) and vectors of width d."""

    device, start = torch.device("cpu"), None

    def __init__(self, t, n_context):
        self.t, self.n_context, self.width = torch.tensor(t), n_context, t.shape[1]

    def __call__(self, context):
        return self.t + context.mean(dim=-2)

    def embed(self, context):
        return self(torch.tensor(context)).numpy()


class CoOpOnClassMeans(CoOpClassifier):
    """CoOp with the stand-in; use it with ``base="class_means"``."""

    def _require_text_tower(self):
        """Do without."""

    def _names(self):
        return None  # labels of any kind

    def _prompt_tower(self, names, context):
        return StandInTower(self.base_, context)
