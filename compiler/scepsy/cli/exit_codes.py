"""Exit codes of the commands; 0 is success."""

ERROR = 1
OUT_OF_DATE = 2
"""`compile --check`: the committed output is out of date; `drift`: there is drift."""
