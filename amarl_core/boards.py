"""TensorBoard logs of a training, through stable-baselines3's own logger: a folder an agent, sb3's names."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from stable_baselines3.common.logger import Logger, configure

from amarl_core.config import TrainConfig
from amarl_core.errors import AmarlError
from amarl_core.files import file_name, storing
from amarl_core.policy import LinearSchedule


def place_of_boards(wanted: bool | str | Path, folder: str | Path | None) -> Path | None:
    """Return where logs go, None for nowhere.

    Args:
        wanted: False, a folder, or True for `tensorboard/` in the run's folder.
        folder: the run's folder, if it has one.

    Raises:
        AmarlError: True without a folder, or no TensorBoard installed.
    """
    if wanted is False or wanted is None:
        return None
    if importlib.util.find_spec("tensorboard") is None:
        raise AmarlError("tensorboard is not installed; pip install tensorboard, or leave tensorboard=False")
    if wanted is True and folder is None:
        raise AmarlError("tensorboard is True and the run has no folder; give folder=..., or tensorboard=<a folder>")
    return Path(folder) / "tensorboard" if wanted is True else Path(wanted)


class Boards:
    """Loggers of all agents.

    Args:
        folder: agent a logs below `folder / a`.
        config: for the schedule of the learning rate.
        end_s: simulated time at which training ends.
        agents: their names.
    """

    def __init__(self, folder: Path, config: TrainConfig, end_s: float, agents: tuple[str, ...]):
        self.folder, self.config, self.end_s = folder, config, end_s
        self.learning_rate = LinearSchedule(config.learning_rate, config.final_learning_rate)
        with storing(folder):
            self._loggers: dict[str, Logger] = {
                a: configure(str(folder / file_name(a)), ["tensorboard"]) for a in agents
            }

    def write(self, row: Mapping) -> None:
        """Log one row of the progress table, at the agent's number of steps."""
        remaining = max(0.0, 1.0 - row["sim_t_s"] / self.end_s) if self.end_s else 0.0
        logger = self._loggers[row["agent"]]
        values = {
            "rollout/ep_rew_mean": row["reward"],
            "rollout/gos": row["gos"],
            "rollout/conflicts": row["conflicts"],
            "rollout/staleness": row["staleness"],
            "time/iterations": row["update"],
            "time/time_elapsed": row["wall_s"],
            "time/fps": row["steps"] / max(row["wall_s"], 1e-9),
            "time/total_timesteps": row["steps"],
            "train/approx_kl": row["kl"],
            "train/clip_range": self.config.clip_range,
            "train/entropy_loss": -row["entropy"],
            "train/learning_rate": self.learning_rate(remaining),
            "train/n_updates": row["update"] * self.config.epochs,
            "train/policy_gradient_loss": row["policy_loss"],
            "train/value_loss": row["value_loss"],
        }
        for name, value in values.items():
            logger.record(name, value)
        with storing(self.folder):
            logger.dump(row["steps"])

    def close(self) -> None:
        """Write what is left, and close the files."""
        with storing(self.folder):
            for logger in self._loggers.values():
                logger.close()
