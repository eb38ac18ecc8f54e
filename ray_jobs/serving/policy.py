"""How an endpoint is run on Ray Serve: between how many replicas, how fast that follows the load, what each bounds."""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass, field
from typing import Any

from lakeloop.ray_jobs.serving.limits import Limits

REPLICA_CPUS = 0.2


@dataclass(frozen=True, slots=True)
class Scaling:
    """When replicas come and go.

    Ray's own values react to a peak after 40 s and keep a replica for 10 minutes. A replica starts within seconds and
    costs little when it comes for nothing, so it comes early; it goes late, because the peak may come again; and to
    zero later still, because then somebody waits for a start.
    """

    in_flight: float = 8.0
    """Requests at once for which one replica is enough."""
    up_after_s: float = 5.0
    down_after_s: float = 120.0
    to_zero_after_s: float = 600.0
    look_back_s: float = 10.0
    """The load is the mean over this time."""
    report_every_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One endpoint's. `least` may be 0: the first request after a pause waits for a start, some seconds."""

    least: int = 1
    most: int = 1
    starts: int = 3
    """Tries to start a replica before the endpoint is said to fail: the store may just have been away."""
    limits: Limits = field(default_factory=Limits)
    scaling: Scaling = field(default_factory=Scaling)

    def options(self, code: str) -> dict[str, Any]:
        """Options of a Serve deployment.

        Another `code` replaces the replicas, new ones first (a surge); a change of the scale alone replaces none.
        """
        return {
            "name": "endpoint",
            "max_ongoing_requests": 2 * self.limits.most_in_flight,  # refusals are ours, and quicker than Ray's queue
            "ray_actor_options": {"num_cpus": REPLICA_CPUS},
            "health_check_period_s": 5,
            "max_constructor_retry_count": self.starts,
            "max_surge_percent": 100,
            "graceful_shutdown_wait_loop_s": 0.2,
            "graceful_shutdown_timeout_s": max(5.0, self.limits.timeout_s + 1),
            "logging_config": {"log_level": "WARNING", "enable_access_log": False},
            "version": code,
            "_internal": True,  # Serve chooses a version by chance otherwise, and each change of scale were a restart
            **self._count(),
        }

    def _count(self) -> dict[str, Any]:
        if self.least == self.most:
            return {"num_replicas": self.least}
        scaling = self.scaling
        return {
            "autoscaling_config": {
                "min_replicas": self.least,
                "initial_replicas": max(1, self.least),  # one start proves that it can
                "max_replicas": self.most,
                "target_ongoing_requests": scaling.in_flight,
                "upscale_delay_s": scaling.up_after_s,
                "downscale_delay_s": scaling.down_after_s,
                "downscale_to_zero_delay_s": scaling.to_zero_after_s,
                "look_back_period_s": scaling.look_back_s,
                "metrics_interval_s": scaling.report_every_s,
            }
        }


def code_version() -> str:
    """What the code of a replica is: the versions of everything that is installed here. Takes a tenth of a second."""
    installed = sorted(f"{one.name} {one.version}" for one in importlib.metadata.distributions())
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()[:16]
