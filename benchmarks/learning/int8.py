"""What weights of 8 bits cost a text model: the demo's, and one with H 512, trained here, then quantized."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import fusegen
from fusegen.train.tasks.text import BITS
from learning.figures import Asked, Figure, train

# Model -> its flags, and by how much its bits per character may rise. The demo's are the defaults; the larger
# one reads as many bytes, in half as many steps.
MODELS = {
    "demo": ((), 0.01),
    "larger": (
        ("--hidden", "512", "--embedding", "512", "--batch", "32", "--steps", "450", "--lr", "0.003"),
        0.005,
    ),
}
FORMS = {"int8": {}, "int8, Linear too": {"linear": True}, "int8 weights alone": {"weight_only": True}}


def int8(asked: Asked) -> Iterator[Figure]:
    """At most 0.01 bits per character lost to fusegen.quantize by the demo's model, 0.005 by a larger one."""
    for model, (flags, most) in MODELS.items():
        done = train(replace(asked, bar=f"int8 {model}"), "text", *flags, folder=asked.folder / model)
        task = done.run.task()
        done.run.load_weights(task, "last")
        task.model.eval()
        before = task.evaluate()[BITS]
        yield replace(done.figure(BITS), value=before)
        for form, options in FORMS.items():
            after = task.evaluate(fusegen.quantize(task.model, **options))[BITS]
            figure = replace(done.figure(BITS), measure=f"{BITS}, {form}", value=after)
            yield figure.beside("float32", before)
            if not options:
                lost = replace(figure, measure="bits per character lost", value=after - before)
                yield lost.beside("bar", most, lost.value <= most)
