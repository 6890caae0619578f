"""How sure a score is: intervals, seeds, calibration."""
