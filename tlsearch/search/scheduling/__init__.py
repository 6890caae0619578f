"""Which trials stop early: ASHA, stopping rules, time budget, constraints. Pure functions."""
