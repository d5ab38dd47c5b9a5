"""A linear support vector machine, one class against the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from arena.core import Labelled
from arena.fields import Count, Positive
from arena.training.fitted import Fitted


@dataclass(frozen=True)
class LinearSVM(Fitted):
    """Scikit-learn's LinearSVC: squared hinge loss and L2 penalty, by liblinear.

    The logits are the signed distances that decide the class, so the model is a white box with
    gradients.

    Attributes:
        penalty: C, the weight of the loss.
        iterations: Most iterations of liblinear; the model is taken as it is then.
    """

    penalty: Positive = 1.0
    iterations: Count = 1000

    def fit(self, data: Labelled, seed: int) -> dict[str, Tensor]:
        """`weight` [K, n] and `bias` [K]; a class without examples is never the answer."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are declared
            svm = LinearSVC(
                C=self.penalty, dual=False, max_iter=self.iterations, random_state=seed % 2**32
            ).fit(data.x.flatten(1).cpu().numpy(), data.y.cpu().numpy())
        found, bias = torch.as_tensor(svm.coef_).float(), torch.as_tensor(svm.intercept_).float()
        if len(found) == 1:  # two classes: only the second's, whose negation is the first's
            found, bias = torch.cat([-found, found]), torch.cat([-bias, bias])
        known = torch.as_tensor(svm.classes_)
        weight = torch.zeros(data.classes, found.shape[1])
        least = torch.full((data.classes,), -1e3)
        weight[known], least[known] = found, bias
        return {"weight": weight, "bias": least}

    def module(self, state: Mapping[str, Tensor], classes: int) -> nn.Module:
        """The module that gives the distances from the hyperplanes."""
        return _Distances(state["weight"], state["bias"])


class _Distances(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """The signed distances [B, K] of `x` [B, ...], in units of each hyperplane's margin."""
        return linear(x.flatten(1), self.weight, self.bias)
