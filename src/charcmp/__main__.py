"""`python -m charcmp`, also from a bare PYTHONPATH."""

from charcmp.cli import main

if __name__ == "__main__":
    main()
