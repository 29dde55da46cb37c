"""The task `gan`: two networks that take turns, on images, series or text."""
