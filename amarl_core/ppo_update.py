"""The arithmetic of a PPO update as one TorchScript function: it runs from first to last minibatch without the
interpreter lock, so that agents that update at the same time do not wait for each other between operations.

Gradients of the two small networks are written out, which is quicker than autograd at these sizes; a test holds the
result to sb3-contrib's own `train()`. Shapes: B samples of a minibatch, O inputs, W units, M slots.
"""

import warnings

import torch
from torch import Tensor

# torch 2.13 announces the end of TorchScript for Python 3.14, which this project does not claim to run on
warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is deprecated", category=DeprecationWarning)


@torch.jit.script
class Hyper:
    """What an update needs to know beside data and parameters."""

    def __init__(
        self,
        relu: bool,
        clip: float,
        entropy_weight: float,
        value_weight: float,
        max_grad_norm: float,
        learning_rate: float,
        beta1: float,
        beta2: float,
        eps: float,
    ):
        self.relu = relu
        self.clip = clip
        self.entropy_weight = entropy_weight
        self.value_weight = value_weight
        self.max_grad_norm = max_grad_norm
        self.learning_rate = learning_rate
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps


@torch.jit.script
def _layer(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    z = torch.addmm(bias, x, weight.t())
    return z.relu_() if relu else z.tanh_()


@torch.jit.script
def _through(gradient: Tensor, activated: Tensor, relu: bool) -> Tensor:
    """Take a gradient back through an activation, given what it put out."""
    return gradient * (activated > 0) if relu else gradient * (1 - activated * activated)


@torch.jit.script
def gradients(
    p: list[Tensor], x: Tensor, mask: Tensor, action: Tensor, old: Tensor, advantage: Tensor, returns: Tensor, h: Hyper
) -> tuple[list[Tensor], Tensor]:
    """Return the gradient of the PPO loss by each parameter, and the losses of one minibatch.

    Args:
        p: weight (out, in) and bias of actor 1, actor 2, slots, critic 1, critic 2, value, in this order.
        x: observations, float32 (B, O).
        mask: allowed slots, bool (B, M).
        action: slots taken, int64 (B,).
        old: log-probability of each when it was taken, (B,).
        advantage, returns: (B,).
        h: the hyper-parameters.

    Returns:
        Gradients in the order of p, and (policy loss, value loss, entropy, KL estimate).
    """
    n = x.size(0)
    a1 = _layer(x, p[0], p[1], h.relu)  # (B, W)
    a2 = _layer(a1, p[2], p[3], h.relu)
    logits = torch.addmm(p[5], a2, p[4].t()).masked_fill_(~mask, -1e8)  # (B, M), as sb3-contrib masks
    c1 = _layer(x, p[6], p[7], h.relu)
    c2 = _layer(c1, p[8], p[9], h.relu)
    value = torch.addmm(p[11], c2, p[10].t())[:, 0]

    log_probs = torch.log_softmax(logits, 1)
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(1)  # (B,)
    log_ratio = log_probs.gather(1, action.unsqueeze(1))[:, 0] - old
    ratio = log_ratio.exp()
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    gain = advantage * ratio
    clipped = advantage * ratio.clamp(1 - h.clip, 1 + h.clip)
    losses = torch.stack(
        [
            -torch.min(gain, clipped).mean(),
            (returns - value).square().mean(),
            entropy.mean(),
            (ratio - 1 - log_ratio).mean(),
        ]
    )

    by_log_prob = torch.where(gain <= clipped, gain, torch.zeros_like(gain)).neg_().div_(n).unsqueeze(1)
    d_logits = (probs * log_probs + probs * entropy.unsqueeze(1)).mul_(h.entropy_weight / n)  # of -entropy
    d_logits -= probs * by_log_prob
    d_logits.scatter_add_(1, action.unsqueeze(1), by_log_prob).masked_fill_(~mask, 0.0)
    d_value = (value - returns).mul_(2 * h.value_weight / n).unsqueeze(1)
    d_a2 = _through(d_logits.mm(p[4]), a2, h.relu)
    d_a1 = _through(d_a2.mm(p[2]), a1, h.relu)
    d_c2 = _through(d_value.mm(p[10]), c2, h.relu)
    d_c1 = _through(d_c2.mm(p[8]), c1, h.relu)
    found: list[Tensor] = []
    for delta, below in [(d_a1, x), (d_a2, a1), (d_logits, a2), (d_c1, x), (d_c2, c1), (d_value, c2)]:
        found.append(delta.t().mm(below))
        found.append(delta.sum(0))
    return found, losses


@torch.jit.script
def run_epochs(
    columns: list[Tensor],
    orders: Tensor,
    cuts: list[int],
    parameters: list[Tensor],
    averages: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    h: Hyper,
) -> tuple[Tensor, bool]:
    """Go over a rollout's minibatches, an Adam step after each, and stop before a step that is not finite.

    Args:
        columns: observation, mask, action, old log-probability, advantage and returns, n samples each.
        orders: int64 (epochs, n), the order of samples in each epoch.
        cuts: where minibatches begin and end, from 0 to n.
        parameters: see `gradients`; changed in place.
        averages, squares, steps: Adam's state of each parameter; changed in place.
        h: the hyper-parameters.

    Returns:
        Sum of the losses over minibatches (those of the last one when it was not finite), and whether all went well.
    """
    totals = torch.zeros(4)
    for epoch in range(orders.size(0)):
        shuffled: list[Tensor] = []
        for column in columns:
            shuffled.append(column[orders[epoch]])
        for part in range(len(cuts) - 1):
            a, b = cuts[part], cuts[part + 1]
            found, losses = gradients(
                parameters,
                shuffled[0][a:b],
                shuffled[1][a:b],
                shuffled[2][a:b],
                shuffled[3][a:b],
                shuffled[4][a:b],
                shuffled[5][a:b],
                h,
            )
            norms: list[Tensor] = []
            for gradient in found:
                norms.append(gradient.norm())
            norm = torch.stack(norms).norm()
            if not bool(torch.isfinite(norm + losses.sum())):
                return losses, False
            scale = (h.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
            for gradient in found:
                gradient.mul_(scale)
            for step in steps:
                step.add_(1)
            torch._fused_adam_(
                parameters,
                found,
                averages,
                squares,
                [],
                steps,
                lr=h.learning_rate,
                beta1=h.beta1,
                beta2=h.beta2,
                weight_decay=0.0,
                eps=h.eps,
                amsgrad=False,
                maximize=False,
            )
            totals += losses
    return totals, True
