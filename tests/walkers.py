"""One request on the compiled kernels, step by step, with names for numbers; and a small network to walk on."""

import numpy as np
from worlds import make_network, make_world

from amarl_core.arrays import REQUEST, SLOT_FEATURES, Rules, make_work, slot_count
from amarl_core.arrays import make_world as make_arrays
from amarl_core.routing import CAUSES, MASKS, SLOT_ORDERS, UNREACHABLE, begin, look, observe, take, to_decision

MU = 100.0
WHY = {0: "", UNREACHABLE: "unreachable"} | dict(enumerate(CAUSES[1:], 1))


class Walker:
    """Drives the kernels for one request on a snapshot given by name."""

    def __init__(self, world, mask="delay", slot_order="priced", max_slots=10, max_hops=24):
        self.world, self.network = world, world.network
        self.arrays = make_arrays(world, MU)
        self.n_slots = slot_count(self.arrays, max_slots)
        self.work = make_work(self.arrays, self.n_slots, max_hops)
        self.rules = Rules(MASKS.index(mask), SLOT_ORDERS.index(slot_order), max_hops)

    def start(self, service, source, destination, demand, used=None, t_s=0.0):
        """Begin a walk; `used` maps link or node ids to what is taken."""
        nodes = self.network.node_index
        row = np.zeros(1, REQUEST)
        row["service"], row["demand"] = self.world.service_ids.index(service), demand
        row["source"], row["destination"], row["t_s"] = nodes[source], nodes[destination], t_s
        self.request = row[0]
        self.work.snapshot[:] = 0
        for name, amount in (used or {}).items():
            self.work.snapshot[self.resource(name)] = amount
        begin(self.arrays, self.work, self.request, 0)
        return self

    def resource(self, name):
        network = self.network
        if name in network.link_ids:
            return network.link_ids.index(name)
        return network.n_links + network.node_index[name]

    def look(self):
        """Return neighbour -> why it is not allowed ("" when it is), in the order of the slots."""
        look(self.arrays, self.work, self.request, self.rules)
        return self.slots()

    def slots(self):
        n = self.work.walk[0]["n_slots"]
        why = [WHY[code] for code in self.work.slot_cause[:n]]
        return dict(zip(self.targets(), why, strict=True))

    def targets(self):
        n = self.work.walk[0]["n_slots"]
        return [self.network.node_ids[self.network.target[link]] for link in self.work.slot_link[:n]]

    def observe(self):
        """Return the observation's slots [M, SLOT_FEATURES] and globals."""
        observe(self.arrays, self.work, self.request, self.rules)
        cut = SLOT_FEATURES * self.n_slots
        x = self.work.observation.copy()
        return x[:cut].reshape(self.n_slots, SLOT_FEATURES), x[cut:]

    def hop(self, link):
        take(self.arrays, self.work, self.request, self.network.link_ids.index(link))
        return self

    def is_open(self):
        return to_decision(self.arrays, self.work, self.request, self.rules)

    @property
    def cause(self):
        return CAUSES[self.work.walk[0]["cause"]]

    @property
    def links(self):
        return [self.network.link_ids[link] for link in self.work.links[: self.work.walk[0]["n_links"]]]

    @property
    def hosts(self):
        return [self.network.node_ids[host] for host in self.work.hosts[: self.work.walk[0]["n_hosts"]]]

    @property
    def latency(self):
        return float(self.work.walk[0]["latency"])


def fork():
    """A site S behind router A; A leads to pool P (hosts F), to B and on to site T; D is a detour to B."""
    network = make_network(
        {
            "S": ("du", 0, False),
            "T": ("du", 0, False),
            "A": ("agg", 0, True),
            "B": ("agg", 0, True),
            "D": ("agg", 0, True),
            "P": ("cu", 1000, True),
            "Q": ("cu", 1000, True),
        },
        {
            "S-A": (100_000, 1.0),
            "A-B": (100_000, 2.0),
            "A-D": (100_000, 2.0),
            "D-B": (100_000, 2.0),
            "B-T": (100_000, 1.0),
            "A-P": (100_000, 0.4),
            "B-Q": (100_000, 0.5),
        },
    )
    hosts = {("P", "F"): 10_000, ("Q", "F"): 10_000}
    services = {"tight": (("F",), 6.0), "loose": (("F",), 50.0), "twice": (("F", "F"), 50.0)} | {
        "thrice": (("F", "F", "F"), 50.0)
    }
    return make_world(network, {"F": 0.5}, services, hosts)
