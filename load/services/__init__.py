"""Three services behind one another, and what their requests saw: for the simulation, for real processes, and for tests (P3)."""
