"""An OpenAI-compatible endpoint in front of a model, whose answers are taken over views.

    a client's JSON ──► chat ──► Job ──► Worker ──► plain answer, views, answer ──► reply
                                         (takes all that wait, in one batch)

Importing this package imports no torch and no web framework; ``server`` does when it serves.
"""
