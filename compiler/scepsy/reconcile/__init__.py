"""Acts on drift: checks the committed Plan, decides on a recompile, pushes or proposes it, watches."""
