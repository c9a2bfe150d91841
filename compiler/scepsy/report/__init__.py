"""What people read: the plan and its explanation as tables in a terminal."""

from scepsy.report.plan_terminal import show_explanation, show_plan, show_state

__all__ = ["show_explanation", "show_plan", "show_state"]
