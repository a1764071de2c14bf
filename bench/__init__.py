"""Measures the budgets of the design: `make bench`, or `make bench ROW=drain` for one of them."""
