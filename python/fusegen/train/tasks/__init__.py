"""What `fusegen train` can teach, by name. A class is imported when it is asked for, no other with it."""

import importlib
from typing import Any

from ..config import nearest

# name: (the class, what `fusegen train --help` says)
TASKS = {
    "text": ("fusegen.train.tasks.text:TextTask", "a language model of bytes, characters or words"),
    "vae": ("fusegen.train.tasks.vae:VAETask", "a variational autoencoder of images"),
    "seqvae": (
        "fusegen.train.tasks.seqvae:SequenceVAETask",
        "a variational autoencoder of sentences or lines",
    ),
    "seq2seq": ("fusegen.train.tasks.seq2seq:Seq2SeqTask", "from one text to another, with attention"),
    "gan": ("fusegen.train.tasks.gan.task:GanTask", "a GAN of images, series or text"),
}


def find_task(name: Any, where: str = "task") -> Any:
    """The class of a task. Raises ValueError, beginning with `where`, for one that there is not."""
    if name not in TASKS:
        raise ValueError(f"{where}: there is no task {name!r}{nearest(str(name), TASKS)}")
    module, _, cls = TASKS[name][0].partition(":")
    return getattr(importlib.import_module(module), cls)
