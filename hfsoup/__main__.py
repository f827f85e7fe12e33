"""`python -m hfsoup`, also what `accelerate launch -m hfsoup` runs."""

from hfsoup.cli import main

if __name__ == "__main__":
    main()
