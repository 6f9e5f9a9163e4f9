"""The routing task as a Gymnasium environment, on the same kernels as the compiled rollout.

One request is one episode; one step is one choice among the allowed neighbour slots (hops without a choice are
walked on their own). Requests that need no choice at all are settled inside `reset` and recorded. Where the agent may
refuse, a request begins with a step even if only one slot is allowed. Nothing is refused here: that is up to whoever
knows what serving the request is worth.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from amarl_core.arena import Agent, Arena
from amarl_core.arrays import make_world, observation_size, slot_count
from amarl_core.config import TrainConfig
from amarl_core.departures import pop, push
from amarl_core.errors import AmarlError
from amarl_core.inference import make_nets
from amarl_core.prices import charge
from amarl_core.rollout import depart, look_at_store, try_commit, write_route
from amarl_core.routing import ACCEPTED, CAUSES, observe, take, to_decision
from amarl_core.simulation import Simulation, Team, options_for


class _MaskedSlots(gym.spaces.Discrete):
    """The slots of an environment; a sample without a mask is drawn among those allowed now."""

    def __init__(self, n: int, env: "RoutingEnv"):
        super().__init__(n)
        self._env = env

    def sample(self, mask: np.ndarray | None = None, **options: Any) -> np.int64:
        """Draw a slot that the mask (by default the environment's) allows."""
        allowed = self._env.action_masks() if mask is None else mask
        return super().sample(mask=np.asarray(allowed, np.int8), **options)


class RoutingEnv(gym.Env):
    """Serve a trace request by request, in order of arrival, on an otherwise idle network.

    Args:
        scenario: the world.
        trace: requests in order of arrival; the environment starts over with an empty network at its end.
        service: serve only this service's requests; None serves all.
        config: mask, slot order, reward and discount.

    Raises:
        AmarlError: an unknown service, or a trace without a request to serve.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, scenario, trace, service: str | None = None, config: TrainConfig | None = None):
        if service is not None and service not in scenario.service_ids:
            raise AmarlError(f"unknown service {service!r}; the scenario has {', '.join(scenario.service_ids)}")
        if service is not None:
            trace = trace[trace.service == scenario.service_ids.index(service)]
        if len(trace) == 0:
            raise AmarlError(f"the trace {trace.name!r} holds no request to serve")
        config = config or TrainConfig()
        self.scenario, self.trace, self.config = scenario, trace, config
        self.world = make_world(scenario, config.mu)
        n_slots = slot_count(self.world, config.max_slots)
        self.observation_space = gym.spaces.Box(-2.0, 2.0, (observation_size(self.world, n_slots),), np.float32)
        self.action_space = _MaskedSlots(n_slots, self)
        self._nets = make_nets(1, 1, 1, n_slots, "relu")
        self._start_over()

    @property
    def _arena(self) -> Arena:
        return self.simulation.arena

    @property
    def _agent(self) -> Agent:
        return self.simulation.agents[0]

    def _start_over(self) -> None:
        """Empty the network and go back to the first request."""
        self._options = options_for(self.config)
        self.simulation = Simulation(
            self.scenario, self.world, self.trace, Team.of(self.scenario, "env"), self._nets, self._options
        )
        self._row = -1
        self._open = False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Go on to the next request that needs a choice; `seed` starts the trace over.

        Returns:
            (observation float32[O], info with the number of requests settled on the way and accepted among them).
        """
        super().reset(seed=seed)
        if seed is not None:
            self._start_over()
        settled = accepted = 0
        while True:
            self._row += 1
            if self._row == len(self.trace):
                self._start_over()
                continue
            self._depart_until(float(self.trace.t_s[self._row]))
            look_at_store(self._arena, self._agent.work, self._row)
            if self._is_open():
                break
            settled += 1
            accepted += self._finish()
            if settled > 2 * len(self.trace):
                raise AmarlError("no request of the trace ever needs a choice; nothing to learn here")
        return self._agent.work.observation.copy(), {"settled": settled, "settled_accepted": accepted}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Take an allowed slot; the request is committed in the step that completes its route.

        Raises:
            AmarlError: a slot that the mask does not allow.
        """
        work = self._agent.work
        if not self._open:
            raise AmarlError("this request is settled; call reset() for the next one")
        if not 0 <= action < len(work.mask):
            raise AmarlError(f"action is {action}; expected a slot from 0 to {len(work.mask) - 1}")
        if not work.mask[action]:
            raise AmarlError(
                f"slot {action} is masked; allowed now: {np.flatnonzero(work.mask).tolist()}. "
                "Train with MaskablePPO, which reads action_masks()"
            )
        walk = work.walk[0]
        price, hops = float(walk["price"]), int(walk["n_links"])
        take(self.world, work, self._arena.requests[self._row], work.slot_link[action])
        is_open = self._is_open()
        options = self._options
        hold = float(self.world.hold[self._arena.requests[self._row]["service"]])
        charged = charge(options, hold, float(walk["price"])) - charge(options, hold, price)
        reward = -charged - options.hop_cost * (int(walk["n_links"]) - hops)
        info: dict[str, Any] = {}
        if not is_open:
            accepted = self._finish()
            reward += options.success if accepted else options.failure
            info = {
                "is_success": bool(accepted),
                "cause": CAUSES[self._arena.records.rows[self._row]["cause"]],
            }
            work.mask[:] = True  # an ended episode has no choice; all slots stand for none
        return work.observation.copy(), reward, not is_open, False, info

    def action_masks(self) -> np.ndarray:
        """Return bool[M]: the slots allowed now."""
        return self._agent.work.mask.copy()

    def decisions(self) -> pd.DataFrame:
        """Return the requests settled since the trace started."""
        return self.simulation.decisions()

    def ledger(self) -> pd.DataFrame:
        """Return the ledger since the trace started."""
        return self.simulation.ledger()

    def drain(self) -> None:
        """Let every active flow depart, as at the end of a day."""
        self._depart_until(np.inf)

    def _is_open(self) -> bool:
        """Walk to the next choice; return whether there is one."""
        work, request = self._agent.work, self._arena.requests[self._row]
        self._open = bool(to_decision(self.world, work, request, self._options.rules))
        if self._open:
            observe(self.world, work, request, self._options.rules)
        return self._open

    def _finish(self) -> bool:
        """Commit a complete route and record the request; return whether it was accepted."""
        arena, agent, stream = self._arena, self._agent, self._agent.stream[0]
        write_route(arena.records, agent.work, self._row)
        if agent.work.walk[0]["cause"] != ACCEPTED or try_commit(arena, agent.work, stream, self._row) != 1:
            return False
        ends = float(self.trace.t_s[self._row] + self.trace.hold_s[self._row])
        push(agent.flows, stream["n_active"], ends, self._row)
        stream["n_active"] += 1
        return True

    def _depart_until(self, t_s: float) -> None:
        flows, stream = self._agent.flows, self._agent.stream[0]
        while stream["n_active"] > 0 and flows.t_s[0] <= t_s:
            depart(self._arena, self._agent.work, flows.row[0], flows.t_s[0])
            pop(flows, stream["n_active"])
            stream["n_active"] -= 1
