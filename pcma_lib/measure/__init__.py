"""What a model is worth and what it costs: metrics, controls, readouts of its parts, operations and time."""
