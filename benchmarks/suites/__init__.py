"""One module per suite: `run(options) -> list[Row]`, and `bars(rows) -> list[Bar]`, which judges them;
`bars_cuda` judges those of a GPU, with the rows of the suite "ceilings" among them."""
