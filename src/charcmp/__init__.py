"""charcmp: recurrent cells compared at equal parameter counts, on the paper's corpora or yours."""

__version__ = "0.1.0"
