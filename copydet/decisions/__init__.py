"""From numbers about a pair to a calibrated score and a verdict: pure functions; the only file is calibration.json."""
