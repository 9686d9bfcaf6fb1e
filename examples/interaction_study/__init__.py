"""Parts of the study of variants on the interactions: ``examples/study.py`` puts them together."""
