"""Does a mutual-information term improve chain-of-thought distillation, on which data, how surely?"""

__version__ = "0.1.0"
