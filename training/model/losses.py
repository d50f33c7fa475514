"""Training losses over scores = user vector · item vector.

Shape legend: T predicted positions, I items, P targets of a position, M sampled items, D = 128.
Every loss is a sum over positions; the caller divides by the number of positions of the global
batch, so that the gradient does not depend on how a batch is dealt out to workers. Products are
computed in the type of the users' vectors, float32 or bfloat16, and all else in float32.
"""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_CHUNK = 256  # positions scored at once: 256 x a few thousand items stay in the cache
_GPU_CHUNK = 8_192  # a GPU has no use for small products


def full_softmax(users: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each position's targets against the whole catalogue, summed.

    users: [T, D]. items: float32 [I, D]. targets: int64 [T, P] rows of `items`.
    weights: float32 [T, P], the share of each target; 0 makes a target not count.

    Loss and gradients are worked out together chunk by chunk, because writing the [T, I] scores
    to memory and reading them back costs more than computing them.
    """
    loss: Tensor = _FullSoftmax.apply(users, items, targets, weights)  # type: ignore[no-untyped-call]
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        user_grad = torch.empty_like(users, dtype=torch.float32)
        item_grad = torch.zeros_like(items, dtype=torch.float32)
        loss = item_grad.new_zeros(())
        items = items.to(users.dtype)
        chunk = _CHUNK if users.is_cpu else _GPU_CHUNK
        buffer = user_grad.new_empty(chunk, len(items))  # written again and again: it stays warm
        for start in range(0, len(users), chunk):
            part = slice(start, start + chunk)
            target, weight = targets[part], weights[part]
            scores = buffer[: len(target)].copy_(users[part] @ items.T)
            highest = scores.amax(1, keepdim=True)
            at_target = scores.gather(1, target) - highest
            softmax = scores.sub_(highest).exp_()
            total = softmax.sum(1, keepdim=True)
            loss += (weight * (total.log() - at_target)).sum()
            # d loss / d scores = total weight * softmax - weight at the targets
            gradient = softmax.mul_(weight.sum(1, keepdim=True) / total)
            gradient.scatter_add_(1, target, -weight)
            gradient = gradient.to(users.dtype)
            user_grad[part] = gradient @ items
            item_grad += gradient.T @ users[part]
        ctx.save_for_backward(user_grad, item_grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        user_grad, item_grad = ctx.saved_tensors
        return outer * user_grad, outer * item_grad, None, None


def sampled_softmax(
    users: Tensor,
    items: Tensor,
    targets: Tensor,
    weights: Tensor,
    sampled: Tensor,
    log_q: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each target against itself and the sampled items, summed.

    Arguments as in `full_softmax`, and sampled: int64 [M], items drawn and shared by all
    positions. A sampled item that is one of the position's targets is left out of its denominator.

    log_q: float32 [I], the logarithm of the probability that a draw is that item. With it a
    sample counts 1 / (M q) times, so that the denominator estimates the full softmax's (Bengio,
    Senécal, 2008). Uniform samples do without: it would be the same for every item.
    """
    positive = (users[:, None, :] * items[targets]).sum(2)
    negative = _negatives(users, items, targets, weights, sampled)
    if log_q is not None:
        negative = negative - (log_q[sampled] + log(max(len(sampled), 1)))
    return _cross_entropy(positive, negative, weights)


def mixed_contrastive(
    users: Tensor,
    items: Tensor,
    targets: Tensor,
    weights: Tensor,
    sampled: Tensor,
    log_q: Tensor,
    given: Tensor,
) -> Tensor:
    """As `sampled_softmax`, with negatives that each user gave beside the sampled ones.

    given: int64 [T, N], items that the position's user rated low, -1 where there are fewer. They
    count once each: nothing was drawn.
    """
    positive = (users[:, None, :] * items[targets]).sum(2)
    negative = _negatives(users, items, targets, weights, sampled)
    negative = negative - (log_q[sampled] + log(max(len(sampled), 1)))
    own = (users[:, None, :] * items[given.clamp(min=0)]).sum(2).float()
    own = own.masked_fill(given < 0, -torch.inf)
    return _cross_entropy(positive, torch.cat([negative, own], dim=1), weights)


def bpr(users: Tensor, items: Tensor, targets: Tensor, weights: Tensor, sampled: Tensor) -> Tensor:
    """-log sigmoid(target's score - sample's score), averaged over the samples, summed.

    Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009. Arguments as in
    `sampled_softmax`; a sample that is one of the position's targets is left out.
    """
    positive = (users[:, None, :] * items[targets]).sum(2).float()
    negative = _negatives(users, items, targets, weights, sampled)
    count = torch.isfinite(negative).sum(1).clamp(min=1)
    loss = positive.new_zeros(())
    for target, weight in zip(positive.T, weights.T, strict=True):
        # A sample at -inf adds softplus(-inf) = 0.
        loss = (
            loss + (weight * functional.softplus(negative - target[:, None]).sum(1) / count).sum()
        )
    return loss


def mse(users: Tensor, items: Tensor, targets: Tensor, weights: Tensor, sampled: Tensor) -> Tensor:
    """(target's score - 1)^2 + the mean of (sample's score)^2, summed.

    What was met should score 1, all else 0. Arguments as in `bpr`.
    """
    positive = (users[:, None, :] * items[targets]).sum(2).float()
    negative = _negatives(users, items, targets, weights, sampled)
    other = torch.isfinite(negative)
    of_samples = negative.masked_fill(~other, 0).square().sum(1) / other.sum(1).clamp(min=1)
    return (weights * (positive - 1).square()).sum() + (weights.sum(1) * of_samples).sum()


def _negatives(
    users: Tensor, items: Tensor, targets: Tensor, weights: Tensor, sampled: Tensor
) -> Tensor:
    """Scores float32 [T, M] of the samples, -inf where one is a target of the position."""
    negative = (users @ items[sampled].T.to(users.dtype)).float()
    is_target = (targets[:, :, None] == sampled) & (weights[:, :, None] > 0)
    return negative.masked_fill(is_target.any(1), -torch.inf)


def _cross_entropy(positive: Tensor, negative: Tensor, weights: Tensor) -> Tensor:
    """-log of each target's share of itself [T, P] and the negatives [T, N], weighted, summed."""
    log_total = torch.logaddexp(positive, negative.logsumexp(1, keepdim=True))
    return (weights * (log_total - positive)).sum()
