"""The decisions: plain Python that neither waits, reads a clock, nor draws chance."""
