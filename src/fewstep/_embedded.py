"""Embedded Runge-Kutta pairs: a method, and a second one of its stages that tells its error."""

from __future__ import annotations

from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

from .classical.runge_kutta import TABLEAUX

__all__ = ["PAIRS", "EmbeddedPair"]


class EmbeddedPair(NamedTuple):
    """A pair whose last stage is at the new point, and is the first stage of the next step.

    Attributes:
        order: order of convergence of the method that steps.
        c: places of the stages in the step.
        a: rows of the strictly lower triangular matrix; the last one has the weights of the step.
        error: weights of the stages in the difference of the two methods.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]

    @property
    def calls(self) -> int:
        """Network calls of a step, accepted or not; the first stage is known."""
        return len(self.a) - 1


def _pair(order: int, *rows: str) -> EmbeddedPair:
    """Return the pair with these rows of ``a``, from the second on, the weights, and the other weights."""
    *a, other = map(_fractions, ("", *rows))
    return _embedded(order, a, other)


def _with(name: str, other: str) -> EmbeddedPair:
    """Return the pair of a method and other weights of its stages."""
    method = TABLEAUX[name]
    return _embedded(method.order, [*method.a, method.b], _fractions(other))


def _fractions(row: str) -> tuple[Fraction, ...]:
    return tuple(map(Fraction, row.split()))


def _embedded(order: int, a: list[tuple[Fraction, ...]], other: tuple[Fraction, ...]) -> EmbeddedPair:
    # The last stage has no weight in the step.
    both = zip_longest((*a[-1], Fraction(0)), other, fillvalue=Fraction(0))
    error = tuple(float(mine - theirs) for mine, theirs in both)
    table = tuple(tuple(map(float, row)) for row in a)
    return EmbeddedPair(order, tuple(float(sum(row)) for row in a), table, error)


#: Pairs by the names of torchdiffeq. One whose own last stage is not at the new point has a further one
#: there, where torchdiffeq goes on with the velocity of another state.
PAIRS = {
    # Dormand and Prince, A family of embedded Runge-Kutta formulae (1980), RK5(4)7M
    "dopri5": _with("dormand_prince", "5179/57600 0 7571/16695 393/640 -92097/339200 187/2100 1/40"),
    # Prince and Dormand, High order embedded Runge-Kutta formulae (1981), RK8(7)13M
    "dopri8": _pair(
        8,
        "1/18",
        "1/48 1/16",
        "1/32 0 3/32",
        "5/16 0 -75/64 75/64",
        "3/80 0 0 3/16 3/20",
        "29443841/614563906 0 0 77736538/692538347 -28693883/1125000000 23124283/1800000000",
        "16016141/946692911 0 0 61564180/158732637 22789713/633445777 545815736/2771057229 "
        "-180193667/1043307555",
        "39632708/573591083 0 0 -433636366/683701615 -421739975/2616292301 100302831/723423059 "
        "790204164/839813087 800635310/3783071287",
        "246121993/1340847787 0 0 -37695042795/15268766246 -309121744/1061227803 -12992083/490766935 "
        "6005943493/2108947869 393006217/1396673457 123872331/1001029789",
        "-1028468189/846180014 0 0 8478235783/508512852 1311729495/1432422823 -10304129995/1701304382 "
        "-48777925059/3047939560 15336726248/1032824649 -45442868181/3398467696 3065993473/597172653",
        "185892177/718116043 0 0 -3185094517/667107341 -477755414/1098053517 -703635378/230739211 "
        "5731566787/1027545527 5232866602/850066563 -4093664535/808688257 3962137247/1805957418 "
        "65686358/487910083",
        "403863854/491063109 0 0 -5068492393/434740067 -411421997/543043805 652783627/914296604 "
        "11173962825/925320556 -13158990841/6184727034 3936647629/1978049680 -160528059/685178525 "
        "248638103/1413531060 0",
        "14005451/335480064 0 0 0 0 -59238493/1068277825 181606767/758867731 561292985/797845732 "
        "-1041891430/1371343529 760417239/1151165299 118820643/751138087 -528747749/2220607170 1/4",
        "13451932/455176623 0 0 0 0 -808719846/976000145 1757004468/5645159321 656045339/265891186 "
        "-3867574721/1518517206 465885868/322736535 53011238/667516719 2/45",
    ),
    # Bogacki and Shampine, A 3(2) pair of Runge-Kutta formulas (1989)
    "bosh3": _with("bogacki_shampine", "7/24 1/4 1/3 1/8"),
    # Fehlberg, Low-order classical Runge-Kutta formulas with stepsize control (1969), RK1(2)
    "fehlberg2": _pair(2, "1/2", "1/256 255/256", "1/512 255/256 1/512", "1/256 255/256"),
    "adaptive_heun": _with("heun", "1"),
}
