"""``python -m fewstep``, which torchrun can start too."""

from .cli import main

if __name__ == "__main__":
    main()
