"""Three services behind one another, and what their requests saw (P3): for the simulation, real processes, and tests."""
