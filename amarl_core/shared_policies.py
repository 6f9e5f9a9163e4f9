"""The policies of a cast: a model an agent (or one for all), each with a lock, and the actors' copies of weights."""

import threading

from sb3_contrib import MaskablePPO

from amarl_core.actors import Cast
from amarl_core.inference import Nets
from amarl_core.policy import copy_weights


class SharedPolicies:
    """Models by actor, and the locks that guard them.

    A model is read and written under its lock alone; an actor's slice of `nets` by its own thread alone.

    Args:
        models: of each agent; agents that act by one policy have the same one.
        cast: the agents' actors.
        nets: weights that the actors' kernels read, a slice an actor.
    """

    def __init__(self, models: list[MaskablePPO], cast: Cast, nets: Nets):
        self.by_agent, self.nets = models, nets
        self.models = [models[a] for a in cast.agent_of_actor]
        locks = {id(model): threading.Lock() for model in models}
        self.locks = [locks[id(model)] for model in self.models]
        self._is_shared = [sum(model is other for other in self.models) > 1 for model in self.models]

    def copy(self, a: int) -> None:
        """Bring actor a's weights up to date, with the model's lock held."""
        copy_weights(self.models[a], self.nets, a)

    def catch_up(self, a: int) -> None:
        """Copy what others taught the policy since actor a's last update, unless one of them is at it right now.

        Actors that waited for each other here as well would take turns instead of working at once.
        """
        if self._is_shared[a] and self.locks[a].acquire(blocking=False):
            try:
                self.copy(a)
            finally:
                self.locks[a].release()

    def hand_over(self, nets: Nets) -> None:
        """Write the models' weights into a slice an agent, once no actor is at work: a team serves by these."""
        for a, model in enumerate(self.by_agent):
            copy_weights(model, nets, a)
