"""Latency of calls that arrive at random and in groups (section 2.2 of the model).

An instance is a queue whose completion rate depends on how many calls run: μ(n) = n ÷ R(n), and no more than K run at
once; the others wait. Groups arrive at Poisson times. With stream s bringing groups of g_s calls at the rate γ_s, the
stationary distribution follows from the balance of flow across each cut:

    p[n] · μ(n) = Σ_s γ_s · Σ_{j = n−g_s}^{n−1} p[j]

Beyond K the rate is constant, so the tail's mass and first moment have closed forms and the recursion ends at K.

A group that meets j calls has ended after about V(j+g), with V(n) = R(n) for n ≤ K and R(K) + (n−K)·R̄(K)/K beyond:
equal calls that start together end together, in rounds of K if they are more. For single calls this equals Little's law
exactly. A stream has its own R (its own tokens) at the common load; R̄ is the mean over all calls.

Groups of calls that are heavier or lighter than the mean call enter the balance as so many mean calls of the same work.
Against a simulated queue, single calls of different classes are within 5 %, and short groups beside long single calls
within 15 % up to 60 % load. Short single calls beside groups of long ones are predicted too fast (by a quarter at 30 %
load, by half near saturation): they wait for whole long calls, which a queue with one kind of call does not model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scepsy.performance.curves import Array

MAX_UTILISATION = 0.95
"""Highest load ÷ capacity of an instance that counts as sustained. At capacity the latency is unbounded, and no profile
supports a prediction close to it."""

_NEGLIGIBLE = 1e-13
_HUGE = 1e200


@dataclass(frozen=True)
class Stream:
    """Groups of calls of one size that one class of caller sends, for a batch of B instances.

    Attributes:
        seconds: R(n) of this class for n = 1 … K, (K, B).
        size: calls per group that reach one instance, (B,), at least 1.
        rate: groups per second that reach one instance, (B,), may be 0.
        alone: seconds that a group takes on an idle instance, (B,); see `rounds`.
    """

    seconds: Array
    size: npt.NDArray[np.int64]
    rate: Array
    alone: Array


def rounds(seconds: Array, size: npt.NDArray[np.int64], limit: npt.NDArray[np.int64]) -> Array:
    """Return how long groups of equal calls take on an idle instance: full rounds of `limit` calls, and the rest.

    Args:
        seconds: R(n), (K, B).
        size: calls per group, (B,), at least 1.
        limit: calls that run at once, (B,), at most K.
    """
    full, rest = (size - 1) // limit, (size - 1) % limit
    columns = np.arange(seconds.shape[1])
    return np.asarray(full * seconds[limit - 1, columns] + seconds[rest, columns])


def latencies(streams: list[Stream]) -> tuple[list[Array], Array, Array]:
    """Return the time until a group's last call ends, per stream, for a batch of instances.

    Args:
        streams: all that reach the instances; K and B are the same in all. R must be constant in n beyond an instance's
            own limit only through K: instances with a smaller limit pad R so that n ÷ R(n) stays at its last value.

    Returns:
        latency: per stream, (B,) seconds; infinite where the instance is not stable.
        utilisation: (B,) load ÷ capacity.
        busy: (B,) part of the time in which at least one call runs.
    """
    limit = len(streams[0].seconds)
    calls = np.stack([s.size * s.rate for s in streams])
    load = calls.sum(axis=0)
    share = np.divide(calls, load, out=np.full_like(calls, 1 / len(streams)), where=load > 0)
    # Streams of one class have one R.
    classes = {id(s.seconds): s.seconds for s in streams}
    weights = [sum(share[i] for i, s in enumerate(streams) if id(s.seconds) == key) for key in classes]
    alone = len(classes) == 1
    mean = streams[0].seconds if alone else sum(w * r for w, r in zip(weights, classes.values(), strict=True))
    # A group enters the balance as so many mean calls of the same work; single calls as they are.
    work = [s.size * s.seconds[-1] / mean[-1] for s in streams]
    size = np.stack([np.where(s.size > 1, np.maximum(np.rint(w), 1), 1) for s, w in zip(streams, work, strict=True)])
    size = size.astype(np.int64)
    rate = calls / size
    most = limit / mean[-1]
    utilisation = load / most
    stable = utilisation < 1

    p, last = _distribution(mean, size, np.where(stable, rate, 0.0))
    wait = 1 / most
    below = p[:last].sum(axis=0)
    tail, moment = _tail(p, most, size, np.where(stable, rate, 0.0), last)
    total = below + p[last] + tail
    result = []
    n = np.arange(last)[:, None]
    for stream in streams:
        # V at j + size for the states j < last, then for `last` and beyond, where it is linear in j when last = K.
        reached = n + stream.size
        running = np.take_along_axis(stream.seconds, np.minimum(reached, limit) - 1, axis=0)
        value = (p[:last] * np.maximum(running + np.maximum(reached - limit, 0) * wait, stream.alone)).sum(axis=0)
        at_last = np.take_along_axis(stream.seconds, np.minimum(last + stream.size, limit)[None, :] - 1, axis=0)[0]
        beyond = last + stream.size - limit
        value += p[last] * np.maximum(at_last + np.maximum(beyond, 0) * wait, stream.alone)
        value += tail * (stream.seconds[-1] + (stream.size - limit) * wait) + moment * wait
        result.append(np.where(stable, value / total, np.inf))
    busy = np.where(load > 0, 1 - p[0] / total, 0.0)
    return result, utilisation, np.where(stable, busy, 1.0)


def _distribution(mean: Array, size: npt.NDArray[np.int64], rate: Array) -> tuple[Array, int]:
    """Return unnormalised p[0 … last] and `last`, which is K or, when hardly any mass is left, a smaller state.

    Args:
        mean: R̄(n) for n = 1 … K, (K, B).
        size: calls per group and stream, (S, B).
        rate: groups per second and stream, (S, B).
    """
    limit, batch = mean.shape
    p = np.zeros((limit + 1, batch))
    cumulated = np.zeros((limit + 2, batch))  # cumulated[n] = p[0] + … + p[n−1]
    p[0] = 1.0
    cumulated[1] = 1.0
    columns = np.arange(batch)
    largest = int(size.max())
    simple = largest == 1
    arrivals = rate.sum(axis=0)
    for n in range(1, limit + 1):
        if simple:
            inflow = arrivals * p[n - 1]
        else:
            inflow = (rate * (cumulated[n] - cumulated[np.maximum(n - size, 0), columns])).sum(axis=0)
        p[n] = inflow * (mean[n - 1] / n)
        cumulated[n + 1] = cumulated[n] + p[n]
        if n % 16 == 0:
            if p[n].max() > _HUGE:
                scale = np.where(p[n] > _HUGE, 1 / _HUGE, 1.0)
                p[: n + 1] *= scale
                cumulated[: n + 2] *= scale
            # As many states as the largest group have negligible mass: so have all beyond them.
            elif n > largest and n < limit:
                recent = p[max(0, n - largest + 1) : n + 1].sum(axis=0)
                if (recent < _NEGLIGIBLE * cumulated[n + 1]).all():
                    p[n] = 0.0
                    return p, n
    return p, limit


def _tail(p: Array, mu: Array, size: npt.NDArray[np.int64], rate: Array, last: int) -> tuple[Array, Array]:
    """Return Σ_{n>last} p[n] and Σ_{n>last} n·p[n], for a constant completion rate beyond `last`.

    Summing the balance over all cuts n > last, each state j feeds the cuts in (max(j, last), j+g]: a group size g from
    a state beyond, the part that reaches over from a state below.
    """
    load = (size * rate).sum(axis=0)
    free = np.maximum(mu - load, 1e-12)
    mass = np.zeros_like(load)
    moment = np.zeros_like(load)
    for g, gamma in zip(size, rate, strict=True):
        first = max(0, last - int(g.max()) + 1)
        j = np.arange(first, last)[:, None]
        over = np.maximum(j + g - last, 0)
        cut_sum = over * last + over * (over + 1) / 2
        mass += gamma * ((p[first:last] * over).sum(axis=0) + g * p[last])
        moment += gamma * ((p[first:last] * cut_sum).sum(axis=0) + p[last] * (g * last + g * (g + 1) / 2))
    mass /= free
    moment = (moment + sum(gamma * g * (g + 1) / 2 for g, gamma in zip(size, rate, strict=True)) * mass) / free
    return mass, moment
