"""How the pocket family was trained: one resumable recipe, a stage a model.

``python -m hb_tta.training.pocket_family --stage all`` rebuilds every weight from a seed. With
``--start FOLDER`` its stages go on from an earlier family's weights: what is new is learnt, what
was known is held, and the denoiser goes on in the latents that it knew. With ``--restore FOLDER``
it takes up a run's stages in small form (``small_form``), made on another machine.
"""
