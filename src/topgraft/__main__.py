"""``python -m topgraft``: the command line."""

from topgraft.cli import main

if __name__ == "__main__":
    main()
