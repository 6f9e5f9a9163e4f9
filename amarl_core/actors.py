"""Who acts for whom: the requests of an agent are dealt to its actors, each a thread with a clock and a rollout.

All actors of an agent act by its one policy. Each reads a copy of the weights of its own, taken under the policy's
lock when a rollout begins or an update ends, so that nobody reads weights that are being written; each updates the one
model in turn, under the same lock, from its own rollout. Decisions, ledger and progress know agents only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from amarl_core.config import TrainConfig
from amarl_core.errors import AmarlError
from amarl_core.inference import Nets
from amarl_core.runs import usable_cores

MOST_ACTORS = 60
"""Of a run: `gate.wake` marks who may go on in the bits of one integer."""


@dataclass(frozen=True)
class Cast:
    """The actors of a team, those of one agent side by side.

    Args:
        agents: names of A agents.
        counts: how many actors each has, at least 1.

    Raises:
        AmarlError: more than `MOST_ACTORS` in all.
    """

    agents: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if sum(self.counts) > MOST_ACTORS:
            raise AmarlError(f"the run has {sum(self.counts)} actors; expected {MOST_ACTORS} at most")

    @classmethod
    def one_each(cls, agents: Sequence[str]) -> "Cast":
        """Return a cast in which every agent acts for itself."""
        return cls(tuple(agents), (1,) * len(agents))

    @property
    def is_one_each(self) -> bool:
        """Whether every agent has one actor."""
        return max(self.counts) == 1

    @cached_property
    def agent_of_actor(self) -> np.ndarray:
        """Return int64[T]: the agent that each of T actors acts for."""
        return np.repeat(np.arange(len(self.agents)), self.counts)

    @cached_property
    def first(self) -> np.ndarray:
        """Return int64[A]: the first actor of each agent."""
        return np.cumsum((0, *self.counts[:-1]))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the actors' names: the agent's, numbered where it has several."""
        parts = zip(self.agents, self.counts, strict=True)
        return tuple(agent if count == 1 else f"{agent}/{i + 1}" for agent, count in parts for i in range(count))

    def actors_of(self, a: int) -> range:
        """Return the actors of agent a."""
        return range(self.first[a], self.first[a] + self.counts[a])

    def deal(self, agent_of_request: np.ndarray) -> np.ndarray:
        """Return which actor serves each request: those of an agent take turns in order of arrival.

        Their clocks so stay close together, and none is busy at other hours than the rest.

        Args:
            agent_of_request: int[n], requests in order of arrival.

        Returns:
            int64[n].
        """
        actor = np.empty(len(agent_of_request), np.int64)
        for a, count in enumerate(self.counts):
            rows = np.flatnonzero(agent_of_request == a)
            actor[rows] = self.first[a] + np.arange(len(rows)) % count
        return actor

    def nets(self, nets: Nets) -> Nets:
        """Return the agents' networks when each has one actor, and else a copy of its agent's for every actor."""
        if self.is_one_each:
            return nets
        return Nets(*(weights[self.agent_of_actor] for weights in nets[:-1]), nets.activation)


def agent_of(name: str) -> str:
    """Return the agent that an actor of this name acts for."""
    return name.rsplit("/", 1)[0]


def counts_by_load(loads: Sequence[int], cores: int) -> tuple[int, ...]:
    """Return the least number of actors by which none carries more than a core's share of all load.

    Args:
        loads: of each agent: its decisions, say.
        cores: among which the load is to be shared.
    """
    total = max(1, sum(loads))
    return tuple(max(1, -(-load * cores // total)) for load in loads)  # rounded up, in integers


def cast_of(config: TrainConfig, agents: Sequence[str], loads: Sequence[int]) -> Cast:
    """Return the cast that a configuration asks for.

    `by_load` splits no central agent, which decides alone by its definition, and nothing where one thread does all.

    Args:
        config: its `actors`.
        agents: their names.
        loads: decisions of each agent.

    Raises:
        AmarlError: actors for an agent that the team does not have, or too many.
    """
    if isinstance(config.actors, Mapping):
        unknown = sorted(set(config.actors) - set(agents))
        if unknown:
            raise AmarlError(
                f"actors names {', '.join(unknown)}; the agents of '{config.method}' are {', '.join(agents)}"
            )
        return Cast(tuple(agents), tuple(int(config.actors.get(agent, 1)) for agent in agents))
    if config.actors == "one" or config.is_serial or len(agents) == 1:
        return Cast.one_each(agents)
    return Cast(tuple(agents), counts_by_load(loads, usable_cores()))
