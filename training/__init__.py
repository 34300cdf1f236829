"""Training: the reward trainer, and how the pocket family was made."""
