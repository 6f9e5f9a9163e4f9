"""One agent's Maskable PPO: the kernels' forward pass, the lean update, and safe files."""

import base64
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer

from amarl_core.arena import make_buffer
from amarl_core.config import make_config
from amarl_core.errors import AmarlError, RunError
from amarl_core.inference import ACTIVATIONS, actor, critic, make_nets, make_scratch, most_likely, sample
from amarl_core.policy import build_model, copy_weights, cuts_of, load_model, save_model, update

N_INPUTS, N_SLOTS = 42, 5


def random_model(seed: int = 0, **settings) -> MaskablePPO:
    """Return a model whose weights are large enough that every layer matters."""
    model = build_model(make_config(**settings), N_INPUTS, N_SLOTS, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def random_inputs(n: int, seed: int = 0):
    """Return observations float32[n, O] and masks bool[n, M] with at least two slots allowed."""
    draw = np.random.default_rng(seed)
    observation = draw.uniform(-2, 2, (n, N_INPUTS)).astype(np.float32)
    observation[draw.random((n, N_INPUTS)) < 0.3] = 0.0
    mask = draw.random((n, N_SLOTS)) < 0.5
    mask[np.arange(n), draw.integers(0, N_SLOTS - 1, n)] = True
    mask[:, -1] = True
    return observation, mask


# ----------------------------------------------------------------------------------------- the forward pass
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("width", [8, 32, 33])
def test_the_kernel_s_forward_pass_is_maskable_ppo_s(activation, width):
    """Of the second of three agents: slots, log-probabilities, values within 1e-5 of the model's own."""
    model = random_model(3, activation=activation, width=width)
    nets = make_nets(3, N_INPUTS, width, N_SLOTS, activation)
    for a in range(3):
        copy_weights(model if a == 1 else random_model(9 + a, activation=activation, width=width), nets, a)
    observation, mask = random_inputs(200)
    scratch, uniform = make_scratch(nets), np.random.default_rng(1).random(200)
    predicted, _ = model.predict(observation, action_masks=mask, deterministic=True)
    slots, log_probs, values, likeliest = [], [], [], []
    for x, allowed, u in zip(observation, mask, uniform, strict=True):
        actor(nets, 1, x, scratch)
        likeliest.append(most_likely(scratch.logits, allowed))
        slot, log_prob = sample(scratch.logits, allowed, u)
        assert allowed[slot]
        slots.append(slot), log_probs.append(log_prob)
        values.append(critic(nets, 1, x, scratch))
    with torch.no_grad():
        value, log_prob, _ = model.policy.evaluate_actions(
            torch.from_numpy(observation), torch.tensor(slots), torch.from_numpy(mask)
        )
    np.testing.assert_array_equal(likeliest, predicted)
    np.testing.assert_allclose(log_probs, log_prob.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(values, value.numpy()[:, 0], atol=1e-5, rtol=1e-5)
    assert len(set(slots)) >= 3 and np.std(values) > 0.1, "constant networks would prove nothing"


def test_slots_are_drawn_in_proportion_to_their_probability():
    """20,000 evenly spaced draws: each slot's share is its masked softmax within two draws."""
    logits = np.array([0.3, -1.0, 2.0, 0.0, 5.0], np.float32)
    mask = np.array([True, True, True, True, False])
    n = 20_000
    drawn = np.bincount([sample(logits, mask, (i + 0.5) / n)[0] for i in range(n)], minlength=N_SLOTS)
    expected = np.where(mask, np.exp(logits.astype(float)), 0)
    np.testing.assert_allclose(drawn, n * expected / expected.sum(), atol=2)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_extreme_draws_take_an_allowed_slot(uniform):
    logits = np.array([1e4, -30.0, -30.0, -30.0, 1e4], np.float32)
    slot, log_prob = sample(logits, np.array([False, True, True, True, False]), uniform)
    assert slot == (1 if uniform == 0 else 3)
    assert log_prob == pytest.approx(np.log(1 / 3), abs=1e-6)


def test_the_first_of_equal_slots_is_the_most_likely():
    assert most_likely(np.array([1.0, 2.0, 2.0], np.float32), np.array([True, True, True])) == 1
    assert most_likely(np.array([9.0, 2.0, 2.0], np.float32), np.array([False, False, True])) == 2


# ------------------------------------------------------------------------------------------ the lean update
def filled_buffer(model, n: int, seed: int = 0):
    """Return a rollout of n decisions whose old policy differs a little, so that some ratios are clipped."""
    draw = np.random.default_rng(seed)
    buffer = make_buffer(n + 24, N_INPUTS, N_SLOTS)
    buffer.observation[:n], buffer.mask[:n] = random_inputs(n, seed)
    buffer.action[:n] = [draw.choice(np.flatnonzero(mask)) for mask in buffer.mask[:n]]
    with torch.no_grad():
        value, log_prob, _ = model.policy.evaluate_actions(*map(torch.from_numpy, (
            buffer.observation[:n], buffer.action[:n], buffer.mask[:n])))  # fmt: skip
    buffer.log_prob[:n] = log_prob.numpy() + draw.normal(0, 0.3, n)
    buffer.value[:n] = value.numpy()[:, 0]
    buffer.advantage[:n] = draw.normal(0.3, 1, n)
    buffer.returns[:n] = buffer.advantage[:n] + buffer.value[:n]
    buffer.fill[0] = n
    return buffer


def train_by_sb3(model, buffer, n: int, progress_remaining: float) -> None:
    """Let sb3-contrib's own train() do what `update` does, in one minibatch of all samples."""
    rollout = MaskableRolloutBuffer(n, model.observation_space, model.action_space, device="cpu",
                                    gae_lambda=model.gae_lambda, gamma=model.gamma, n_envs=1)  # fmt: skip
    rollout.observations[:, 0] = buffer.observation[:n]
    rollout.action_masks[:, 0] = buffer.mask[:n]
    for name, column in (("actions", buffer.action), ("log_probs", buffer.log_prob), ("values", buffer.value),
                         ("advantages", buffer.advantage), ("returns", buffer.returns)):  # fmt: skip
        getattr(rollout, name)[:, 0] = column[:n, None] if name == "actions" else column[:n]
    rollout.pos, rollout.full = n, True
    model.rollout_buffer, model.batch_size = rollout, n
    model._current_progress_remaining = progress_remaining
    model.train()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_lean_update_is_one_of_sb3(activation, epochs):
    """One minibatch of all samples: parameters, optimiser and counters as MaskablePPO.train() leaves them."""
    settings = dict(activation=activation, epochs=epochs, minibatch=512, entropy_weight=0.01, max_grad_norm=0.3)
    ours, theirs = random_model(5, **settings), random_model(5, **settings)
    before = [parameter.detach().clone() for parameter in ours.policy.parameters()]
    buffer = filled_buffer(ours, 512)
    stats = update(ours, buffer, 512, 0.6, np.random.default_rng(0))
    train_by_sb3(theirs, buffer, 512, 0.6)
    for mine, yours in zip(ours.policy.parameters(), theirs.policy.parameters(), strict=True):
        torch.testing.assert_close(mine, yours, atol=1e-5, rtol=1e-5)
    pairs = zip(before, ours.policy.parameters(), strict=True)
    moved = max(float((a - b).detach().abs().max()) for a, b in pairs)
    assert moved > 1e-4, "an update that changes nothing would agree as well"
    assert ours._n_updates == theirs._n_updates == epochs
    rates = [model.policy.optimizer.param_groups[0]["lr"] for model in (ours, theirs)]
    config = make_config(**settings)
    fallen = config.learning_rate - config.final_learning_rate
    assert rates[0] == rates[1] == pytest.approx(config.final_learning_rate + fallen * 0.6)
    assert ours.num_timesteps == 512
    logged = theirs.logger.name_to_value
    assert stats.entropy == pytest.approx(-logged["train/entropy_loss"], abs=1e-5)
    assert stats.value_loss == pytest.approx(logged["train/value_loss"], rel=1e-5)
    assert stats.policy_loss == pytest.approx(logged["train/policy_gradient_loss"], abs=1e-5)


def test_only_the_filled_part_of_a_buffer_counts():
    ours, other = random_model(5), random_model(5)
    buffer = filled_buffer(ours, 300)
    again = filled_buffer(ours, 300)
    for column in again[:-1]:
        column[300:] = 1
    update(ours, buffer, 300, 1.0, np.random.default_rng(0))
    update(other, again, 300, 1.0, np.random.default_rng(0))
    for mine, yours in zip(ours.policy.parameters(), other.policy.parameters(), strict=True):
        assert mine.equal(yours)


def test_an_update_raises_the_probability_of_what_went_well():
    model = random_model(2, epochs=10, entropy_weight=0.0)
    buffer = filled_buffer(model, 400)
    good = buffer.action[:400] == buffer.action[0]
    buffer.advantage[:400] = np.where(good, 1.0, -1.0)
    inputs = [torch.from_numpy(a[:400]) for a in (buffer.observation, buffer.action, buffer.mask)]
    buffer.log_prob[:400] = model.policy.evaluate_actions(*inputs)[1].detach().numpy()
    update(model, buffer, 400, 1.0, np.random.default_rng(0))
    gained = model.policy.evaluate_actions(*inputs)[1].detach().numpy() - buffer.log_prob[:400]
    assert gained[good].mean() > 0 > gained[~good].mean()


@given(st.integers(2, 5000), st.integers(2, 4096))
def test_minibatches_cover_all_samples_once_and_none_is_of_one_sample(n, size):
    cuts = cuts_of(n, size)
    assert (cuts[0], cuts[-1]) == (0, n)
    lengths = np.diff(cuts)
    assert min(lengths) >= 2, "the standard deviation of one sample is not a number"
    assert max(lengths) - min(lengths) <= 1
    assert max(lengths) <= max(2 * size, 3)


@pytest.mark.parametrize("column", ["advantage", "returns", "observation", "log_prob"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_leaves_the_weights(column, value):
    """With weights that are no numbers the last allowed slot is always taken, and GoS stays high."""
    model = random_model()
    buffer = filled_buffer(model, 100)
    getattr(buffer, column)[7] = value
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    with pytest.raises(FloatingPointError):
        update(model, buffer, 100, 1.0, np.random.default_rng(0))
    for mine, earlier in zip(model.policy.parameters(), before, strict=True):
        assert mine.equal(earlier)


def test_building_a_model_leaves_torch_s_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = build_model(make_config(), N_INPUTS, N_SLOTS, 7)
    assert torch.rand(3).equal(expected)
    torch.manual_seed(2)
    second = build_model(make_config(), N_INPUTS, N_SLOTS, 7)
    third = build_model(make_config(), N_INPUTS, N_SLOTS, 8)
    weights = [model.policy.mlp_extractor.policy_net[0].weight for model in (first, second, third)]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])


# ---------------------------------------------------------------------------------------------------- files
class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def repack(path, **members: bytes) -> None:
    """Replace members of a zip file."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | members).items():
            archive.writestr(name, data)


@pytest.fixture
def saved(toy, tmp_path):
    """A model on disk, that claims to be for the toy scenario."""
    model = random_model(4)
    save_model(model, tmp_path, "video", make_config(), toy)
    return model, tmp_path


def test_a_loaded_model_predicts_as_the_saved_one(toy, saved):
    model, folder = saved
    loaded = load_model(folder, "video", toy, N_INPUTS, N_SLOTS)
    for mine, yours in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True):
        assert mine.equal(yours)
    observation, mask = random_inputs(50)
    np.testing.assert_array_equal(loaded.predict(observation, action_masks=mask, deterministic=True)[0],
                                  model.predict(observation, action_masks=mask, deterministic=True)[0])  # fmt: skip


def test_sb3_itself_reads_the_file(saved):
    model, folder = saved
    stock = MaskablePPO.load(folder / "video.zip", device="cpu")
    observation, mask = random_inputs(50)
    np.testing.assert_array_equal(stock.predict(observation, action_masks=mask, deterministic=True)[0],
                                  model.predict(observation, action_masks=mask, deterministic=True)[0])  # fmt: skip


def test_loading_runs_no_pickle_of_the_data_member(toy, saved, tmp_path):
    """A poisoned `data` member, which sb3's own load would run, is not looked at."""
    model, folder = saved
    sprung = tmp_path / "sprung"
    with zipfile.ZipFile(folder / "video.zip") as archive:
        data = json.loads(archive.read("data"))
    data["learning_rate"] = {
        ":type:": "<class 'x'>",
        ":serialized:": base64.b64encode(pickle.dumps(Trap(sprung))).decode(),
    }
    repack(folder / "video.zip", data=json.dumps(data).encode())
    loaded = load_model(folder, "video", toy, N_INPUTS, N_SLOTS)
    assert loaded.policy.action_net.weight.equal(model.policy.action_net.weight)
    assert not sprung.exists()
    try:
        MaskablePPO.load(folder / "video.zip", device="cpu")
    except Exception:
        pass
    assert sprung.exists(), "the trap does work where pickles are run"


def test_a_pickle_among_the_weights_is_refused_and_not_run(toy, saved, tmp_path):
    _, folder = saved
    sprung, content = tmp_path / "sprung", io.BytesIO()
    torch.save({"action_net.weight": Trap(sprung)}, content)
    repack(folder / "video.zip", **{"policy.pth": content.getvalue()})
    with pytest.raises(AmarlError, match="video.zip"):
        load_model(folder, "video", toy, N_INPUTS, N_SLOTS)
    assert not sprung.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "no weights", "other weights", "no json", "not json",
                                    "json without keys", "unknown setting"])  # fmt: skip
def test_a_damaged_model_is_refused_by_name(toy, saved, damage):
    _, folder = saved
    weights, about = folder / "video.zip", folder / "video.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "no weights":
        with zipfile.ZipFile(weights, "w") as archive:
            archive.writestr("data", "{}")
    elif damage == "other weights":
        content = io.BytesIO()
        torch.save({"x": torch.zeros(3)}, content)
        repack(weights, **{"policy.pth": content.getvalue()})
    elif damage == "no json":
        about.unlink()
    elif damage == "not json":
        about.write_text("{", encoding="utf-8")
    elif damage == "json without keys":
        about.write_text("{}", encoding="utf-8")
    elif damage == "unknown setting":
        said = json.loads(about.read_text(encoding="utf-8"))
        said["config"]["wings"] = 2
        about.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(AmarlError):
        load_model(folder, "video", toy, N_INPUTS, N_SLOTS)


@pytest.mark.parametrize("n_inputs, n_slots, says", [
    (N_INPUTS + 8, N_SLOTS, "observation_size is 42, expected 50"),
    (N_INPUTS, N_SLOTS + 1, "n_slots is 5, expected 6"),
])  # fmt: skip
def test_a_model_of_another_size_is_refused_by_name(toy, saved, n_inputs, n_slots, says):
    _, folder = saved
    with pytest.raises(RunError, match=says) as error:
        load_model(folder, "video", toy, n_inputs, n_slots)
    assert "video.json" in str(error.value) and "'toy'" in str(error.value)


def test_a_missing_model_is_an_error_that_names_it(toy, tmp_path):
    with pytest.raises(RunError, match="no model of agent 'ar'"):
        load_model(tmp_path, "ar", toy, N_INPUTS, N_SLOTS)
