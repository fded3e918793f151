"""Documents that neuromas writes and reads: pydantic models, exported as JSON Schema to ``schemas/``."""
