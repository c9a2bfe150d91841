"""What is still to be measured: whose calls, what profiles already say of them, and the sweeps that remain."""

from scepsy.profiling.planning.planner import plan_profiles
from scepsy.profiling.planning.sweep import Covered, Missing, ProfilePlan, RuledOut, Shape, Stale, Sweep

__all__ = ["Covered", "Missing", "ProfilePlan", "RuledOut", "Shape", "Stale", "Sweep", "plan_profiles"]
