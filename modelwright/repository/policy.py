"""Which versions of a model are served: what its model.yaml asks for, what is promoted, and what pipelines need."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from modelwright.config.edit import parameter, with_own_policy, with_versions
from modelwright.config.render import parse
from modelwright.digest import parse_json
from modelwright.errors import RepositoryError
from modelwright.repository.ledger import ServingState
from modelwright.triton.layout import PINS
from modelwright.triton.policy import selected

# How long a version that no pipeline needs any more stays served: a server that polls may run the old pipeline until it
# has looked again. Triton polls every 15 s unless told otherwise.
SETTLE_S = 60


def with_policy(
    text: str,
    model: str,
    versions: Collection[int],
    state: ServingState,
    needed: Iterable[int],
    now: datetime,
    *,
    prebuilt: bool = False,
) -> tuple[str, ServingState]:
    """A config's text with the version_policy that is right for these versions, and the state that goes with it.

    `text` has the model's own policy, or the one that an earlier call put there. `needed` are the versions that
    pipelines need. A withdrawn version is not served, even where a killed command left it in the repository. Where its
    own policy serves what is right, the config keeps it, that of a `prebuilt` model always; but not while a version is
    promoted, since its own policy would serve the next one that is published.

    Raises RepositoryError where a pipeline needs a version above the promoted one, which requests without a version
    would get; and for an ensemble of which two versions would have to be served.
    """
    plain = with_own_policy(text)
    config = parse(plain, f"{model}: config.pbtxt")
    by_own = selected(config.version_policy, _fitting(config, versions))
    staying = [number for number in versions if number not in state.withdrawn]  # the others were to leave: a kill
    own = selected(config.version_policy, _fitting(config, staying)) if staying else by_own
    if state.promoted is not None and state.promoted not in versions:
        hint = f"promote another one (modelwright promote {model} latest), or bring it back (modelwright restore)"
        raise RepositoryError(f"{model}: version {state.promoted} is promoted, and it is not in the repository", hint)
    chosen = {state.promoted} if state.promoted is not None else set(own)
    needing, lately = set(needed), recent(state, now)
    if prebuilt:
        needing = lately = set()
    elif _has_pinned_steps(config):
        _check_one(model, chosen, needing)
        needing = lately = set()
    right = (chosen | needing | lately).intersection(versions)
    if state.promoted is not None and (above := sorted(number for number in right if number > state.promoted)):
        reason = f"{model}: version {state.promoted} cannot be the promoted one: a pipeline "
        if above[-1] not in needing:
            hint = f"wait {SETTLE_S} s: a server that polls may still run the pipeline as it was"
            raise RepositoryError(f"{reason}needed version {above[-1]} until a moment ago", hint)
        hint = f"promote {above[-1]} (modelwright promote {model} {above[-1]}), or roll the pipeline back first"
        raise RepositoryError(f"{reason}needs version {above[-1]}, which requests without a version would get", hint)
    kept = state.model_copy(
        update={"released": {number: time for number, time in state.released.items() if number in lately}}
    )
    if right == set(by_own) and state.promoted is None and (prebuilt or not is_pinned(config)):
        return plain, kept
    return with_versions(plain, right), kept


def _fitting(config: Any, versions: Collection[int]) -> Collection[int]:
    """The versions that a config is for: where it has pins by version, those that it has some for.

    An ensemble that became a Python model, to be kept, has older versions without a model.py. A server that looks for
    one hangs.
    """
    try:
        pinned = parse_json(parameter(config, PINS) or "{}")
    except (ValueError, RecursionError):  # the server, or the model, says so
        pinned = {}
    named = [number for number in versions if isinstance(pinned, dict) and str(number) in pinned]
    return named or versions


def is_pinned(config: Any) -> bool:
    """Whether a config names versions of other models.

    Then it always names its own, too: a server that reads its folder again, for the sake of a model that it runs, must
    not serve a newer version with the pins of an older one.
    """
    return PINS in config.parameters or _has_pinned_steps(config)


def _has_pinned_steps(config: Any) -> bool:
    return any(step.model_version > 0 for step in config.ensemble_scheduling.step)


def _check_one(model: str, chosen: set[int], needing: set[int]) -> None:
    """An ensemble has one config, and so one set of pins, for all its versions."""
    other = sorted(needing - chosen)
    if other and chosen:
        problem = f"{model}: a pipeline needs version {other[0]}, and version {max(chosen)} is to be served"
        hint = "an ensemble serves one version at a time, unless its source says keep: 2, or more"
        raise RepositoryError(problem, hint)


def recent(state: ServingState, now: datetime) -> set[int]:
    """The versions that pipelines needed until a moment ago."""
    return {number for number, time in state.released.items() if now - time < timedelta(seconds=SETTLE_S)}


def released(state: ServingState, versions: Iterable[int], now: datetime) -> ServingState:
    """The state once pipelines need these versions no longer."""
    return state.model_copy(update={"released": {**state.released, **dict.fromkeys(versions, now)}})


def utc_now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
