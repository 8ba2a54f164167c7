"""Half precision: float16 and bfloat16, as the type of computation or of storage alone."""
