"""Fine-tune a language model for what an organisation demands, and prove it before production."""

__version__ = "0.1.0"
