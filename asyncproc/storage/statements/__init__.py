"""Every statement, by subject: each with what goes in, what comes out, and the plan it relies on."""
