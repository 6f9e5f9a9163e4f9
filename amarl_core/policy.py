"""One agent's Maskable PPO: sb3-contrib's model, a lean update on the rollout's arrays, and safe files.

The model, its optimiser, schedules and file format are sb3-contrib's; only the loop over minibatches is ours
(`ppo_update`). Loading builds the model from a JSON and then sets weights only, so that no pickle is run.
"""

import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import Logger

from amarl_core.arena import Buffer, make_buffer
from amarl_core.config import TrainConfig, make_config
from amarl_core.errors import RunError
from amarl_core.files import file_name, write_text, write_whole
from amarl_core.inference import Nets
from amarl_core.ppo_update import Hyper, run_epochs

ACTIVATION = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class LinearSchedule:
    """A value that falls linearly with the progress that remains (1 at the start, 0 at the end)."""

    def __init__(self, start: float, end: float):
        self.start, self.end = start, end

    def __call__(self, progress_remaining: float) -> float:
        return self.end + (self.start - self.end) * progress_remaining


class _SpacesOnly(gym.Env):
    """What MaskablePPO wants to know of an environment that the compiled rollout replaces."""

    def __init__(self, n_inputs: int, n_slots: int):
        self.observation_space = gym.spaces.Box(-2.0, 2.0, (n_inputs,), np.float32)
        self.action_space = gym.spaces.Discrete(n_slots)

    def reset(self, *, seed=None, options=None):
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        raise RunError("this model trains on compiled rollouts; use RoutingEnv to step through requests")

    def action_masks(self) -> np.ndarray:
        return np.ones(self.action_space.n, np.bool_)


def build_model(config: TrainConfig, n_inputs: int, n_slots: int, seed: int) -> MaskablePPO:
    """Return a fresh sb3-contrib model, its weights drawn from a seed without touching torch's global state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskablePPO(
            "MlpPolicy",
            _SpacesOnly(n_inputs, n_slots),
            device="cpu",
            verbose=0,
            learning_rate=LinearSchedule(config.learning_rate, config.final_learning_rate),
            n_steps=config.minibatch,
            batch_size=config.minibatch,
            n_epochs=config.epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            clip_range=config.clip_range,
            ent_coef=config.entropy_weight,
            vf_coef=config.value_weight,
            max_grad_norm=config.max_grad_norm,
            policy_kwargs=dict(
                net_arch=[config.width, config.width],
                activation_fn=ACTIVATION[config.activation],
                optimizer_kwargs=dict(fused=True),
            ),
        )
    model.set_logger(Logger(None, []))
    if config.may_refuse:
        with torch.no_grad():  # a critic that knows nothing yet expects nothing, and so refuses nothing
            model.policy.value_net.weight.zero_()
    return model


@dataclass(frozen=True)
class UpdateStats:
    """Means over one update's minibatches."""

    policy_loss: float
    value_loss: float
    entropy: float
    kl: float  # estimate of the divergence from the policy that acted


def cuts_of(n: int, size: int) -> list[int]:
    """Cut n samples into equal minibatches of about `size`, never one of a single sample; return 0, ..., n."""
    return np.linspace(0, n, max(1, min(round(n / size), n // 2)) + 1).astype(int).tolist()


def update(
    model: MaskablePPO, buffer: Buffer, n: int, progress_remaining: float, generator: np.random.Generator
) -> UpdateStats:
    """Do one PPO update on the first n >= 2 decisions of a rollout, as MaskablePPO.train() would.

    Args:
        model: changed in place, with its optimiser, counters and learning rate.
        buffer: the rollout.
        n: decisions in it.
        progress_remaining: 1 at the start of training, 0 at its end, for the schedules.
        generator: draws the order of samples.

    Raises:
        FloatingPointError: a loss is not finite; the message says which.
    """
    optimizer = model.policy.optimizer
    model._current_progress_remaining = progress_remaining
    model._update_learning_rate(optimizer)
    group = optimizer.param_groups[0]
    hyper = Hyper(
        model.policy.activation_fn is torch.nn.ReLU,
        float(model.clip_range(progress_remaining)),
        float(model.ent_coef),
        float(model.vf_coef),
        float(model.max_grad_norm),
        float(group["lr"]),
        float(group["betas"][0]),
        float(group["betas"][1]),
        float(group["eps"]),
    )
    parameters = _parameters(model)
    states = [_adam_state(optimizer, parameter) for parameter in parameters]
    columns = [
        torch.from_numpy(a[:n])
        for a in (buffer.observation, buffer.mask, buffer.action, buffer.log_prob, buffer.advantage, buffer.returns)
    ]
    orders = torch.from_numpy(np.stack([generator.permutation(n) for _ in range(model.n_epochs)]))
    cuts = cuts_of(n, model.batch_size)
    totals, is_finite = run_epochs(
        columns,
        orders,
        cuts,
        [parameter.detach() for parameter in parameters],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [state["step"] for state in states],
        hyper,
    )
    if not is_finite:
        raise FloatingPointError(
            f"a loss or its gradient is not finite (policy loss {totals[0].item()}, value loss {totals[1].item()}); "
            "lower learning_rate"
        )
    model._n_updates += model.n_epochs
    model.num_timesteps += n
    return UpdateStats(*(totals / (model.n_epochs * (len(cuts) - 1))).tolist())


def _parameters(model: MaskablePPO) -> list[torch.nn.Parameter]:
    """Return weight and bias of every layer, actor first, in the order of `ppo_update.gradients`."""
    policy = model.policy
    actor, critic = policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net
    layers = (actor[0], actor[2], policy.action_net, critic[0], critic[2], policy.value_net)
    return [parameter for layer in layers for parameter in (layer.weight, layer.bias)]


def _adam_state(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> dict:
    """Return a parameter's state in Adam, as Adam itself would begin it."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"] = torch.zeros_like(parameter, requires_grad=False)
        state["exp_avg_sq"] = torch.zeros_like(parameter, requires_grad=False)
    return state


def model_state(model: MaskablePPO) -> dict[str, np.ndarray]:
    """Return weights, Adam's state and counters of a model as copies, by name."""
    arrays = {"counters": np.array([model.num_timesteps, model._n_updates])}
    for name, parameter in model.policy.named_parameters():
        arrays[name] = parameter.detach().numpy().copy()
        for key, value in _adam_state(model.policy.optimizer, parameter).items():
            arrays[f"{name}/{key}"] = value.numpy().copy()
    return arrays


def set_model_state(model: MaskablePPO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what `model_state` returned into a model of the same configuration."""
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))
            for key, value in _adam_state(model.policy.optimizer, parameter).items():
                value.copy_(torch.from_numpy(arrays[f"{name}/{key}"]))
    model.num_timesteps, model._n_updates = arrays["counters"].tolist()


def warm_up(config: TrainConfig) -> None:
    """Do an update of a throw-away model, so that torch has loaded what it loads at first use."""
    buffer = make_buffer(4, 3, 2)
    buffer.mask[:] = True
    update(build_model(config, 3, 2, 0), buffer, 4, 1.0, np.random.default_rng(0))


def copy_weights(model: MaskablePPO, nets: Nets, a: int) -> None:
    """Write a model's weights into agent a's slice of the kernels' networks."""
    parameters = _parameters(model)
    layers = (nets.actor_1, nets.actor_2, nets.actor_3, nets.critic_1, nets.critic_2, nets.critic_3)
    for weights, weight, bias in zip(layers, parameters[::2], parameters[1::2], strict=True):
        weights[a, :-1] = weight.detach().numpy().T
        weights[a, -1] = bias.detach().numpy()


def save_model(model: MaskablePPO, folder: Path, agent: str, config: TrainConfig, scenario) -> None:
    """Write `<agent>.zip` (sb3's format) and `<agent>.json` (what it fits), each in one step."""
    archive = io.BytesIO()  # torch's own writer would make another error of a full disk
    model.save(archive)
    write_whole(folder / f"{file_name(agent)}.zip", lambda file: file.write(archive.getvalue()))
    about = {
        "agent": agent,
        "config": asdict(config),
        "scenario": scenario.name,
        "digest": scenario.digest,
        "services": list(scenario.service_ids),
        "observation_size": model.observation_space.shape[0],
        "n_slots": int(model.action_space.n),
    }
    write_text(folder / f"{file_name(agent)}.json", json.dumps(about, indent=1))


def load_model(folder: Path, agent: str, scenario, n_inputs: int, n_slots: int) -> MaskablePPO:
    """Read a model that fits a scenario; only tensors are unpickled.

    Raises:
        RunError: a missing file, or a model for other services, another observation size or number of slots.
    """
    about_path, weights_path = (folder / f"{file_name(agent)}.{kind}" for kind in ("json", "zip"))
    if not about_path.exists() or not weights_path.exists():
        raise RunError(f"{folder}: no model of agent '{agent}'; expected {about_path.name} and {weights_path.name}")
    try:
        about = json.loads(about_path.read_text(encoding="utf-8"))
        fits = {"services": list(scenario.service_ids), "observation_size": n_inputs, "n_slots": n_slots}
        found, trained_on = {name: about[name] for name in fits}, about["scenario"]
        config = make_config(**about["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{about_path}: not a description of a model ({error}); delete the run and train again"
        ) from error
    for name, expected in fits.items():
        if found[name] != expected:
            raise RunError(
                f"{about_path.name}: the model does not fit scenario '{scenario.name}': its {name} is {found[name]}, "
                f"expected {expected}; train on this scenario (the model was trained on '{trained_on}')"
            )
    model = build_model(config, n_inputs, n_slots, seed=0)
    state = read_weights(weights_path)
    try:
        model.policy.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise _not_weights(weights_path, error) from error
    return model


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the policy's weights from a model's zip: tensors only, whatever else its pickles say is refused.

    Raises:
        RunError: the file holds no weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True)
    except (zipfile.BadZipFile, KeyError, RuntimeError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise _not_weights(path, error) from error


def _not_weights(path: Path, error: Exception) -> RunError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RunError(f"{path}: not the weights of this model ({reason}); delete the run and train again")
