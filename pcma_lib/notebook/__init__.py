"""What the lessons share: figures, widgets, exercises."""
