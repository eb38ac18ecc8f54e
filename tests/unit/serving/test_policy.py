"""A project's policy as what Serve is asked for: Serve's own reading of it, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from ray import serve

from lakeloop.infra.cli.serving import _policy
from lakeloop.lakehouse.project.binding import bind
from lakeloop.lakehouse.project.parsing import parse_project
from lakeloop.ray_jobs.serving.limits import Limits
from lakeloop.ray_jobs.serving.policy import Policy, Scaling, code_version
from lakeloop.tests.unit.project.projects import changed, flights


def read_by_serve(policy: Policy, code: str = "one") -> Any:
    return serve.deployment(lambda: None).options(**policy.options(code))


def test_a_project_says_how_many_replicas_and_how_long_a_request_may_take() -> None:
    edit = {
        "models/late_arrival.toml": (
            'replicas = { min = 1, max = 2 }\ntimeout  = "1s"',
            'replicas = { min = 0, max = 5 }\ntimeout  = "250ms"',
        )
    }
    text = flights().files["models/late_arrival.toml"]
    assert "replicas = { min = 1" in text
    project = bind(parse_project(changed(flights().files, edit)))
    policy = _policy(project.project.models["late_arrival"].serving)
    assert (policy.least, policy.most, policy.limits.timeout_s) == (0, 5, 0.25)


def test_replicas_follow_the_load_between_the_bounds_and_one_start_proves_that_it_can() -> None:
    scaling = read_by_serve(Policy(0, 4))._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas) == (0, 1, 4)
    ours = Scaling()
    assert scaling.upscale_delay_s == ours.up_after_s
    assert scaling.downscale_delay_s == ours.down_after_s
    assert scaling.downscale_to_zero_delay_s == ours.to_zero_after_s
    assert read_by_serve(Policy(2, 4))._deployment_config.autoscaling_config.initial_replicas == 2


def test_equal_bounds_are_a_fixed_number() -> None:
    fixed = read_by_serve(Policy(3, 3))
    assert fixed.num_replicas == 3
    assert fixed._deployment_config.autoscaling_config is None


def test_new_replicas_come_before_old_ones_go_and_an_answer_may_take_its_time_when_they_do() -> None:
    config = read_by_serve(Policy(limits=Limits(timeout_s=30)))._deployment_config
    assert config.max_surge_percent == 100
    assert config.graceful_shutdown_timeout_s > 30
    assert config.max_ongoing_requests > Limits().most_in_flight, "refusals are ours"


def test_only_another_code_is_another_version_for_serve() -> None:
    assert read_by_serve(Policy(1, 1), "a").version == read_by_serve(Policy(2, 4), "a").version == "a"
    assert read_by_serve(Policy(), "b").version == "b"
    assert code_version() == code_version()


@pytest.mark.parametrize("least", [0, 1])
def test_a_policy_that_scales_asks_for_no_fixed_number(least: int) -> None:
    assert "num_replicas" not in Policy(least, 2).options("a")
