"""How the pocket family was trained: one resumable recipe, a stage a model.

``python -m hb_tta.training.pocket_family --stage all`` rebuilds every weight from a seed.
"""
