"""Everything on one machine: the parts that `make up` starts beside Ray."""
