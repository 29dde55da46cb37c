"""One module per suite: `run(options) -> list[Row]`, and `bars(rows) -> list[Bar]`, which judges them."""
