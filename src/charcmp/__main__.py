"""`python -m charcmp`, also from a bare PYTHONPATH."""

from charcmp.cli.main import main

if __name__ == "__main__":
    main()
