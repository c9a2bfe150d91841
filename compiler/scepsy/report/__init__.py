"""Reports in a terminal and as pages: plans, explanations, profiles, traces and drift."""

from scepsy.report.plan_terminal import show_explanation, show_plan, show_state

__all__ = ["show_explanation", "show_plan", "show_state"]
