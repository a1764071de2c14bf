"""The core alone, in simulated time, through seeded histories of faults."""
