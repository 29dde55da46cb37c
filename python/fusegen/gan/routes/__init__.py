"""The ways that a step can take: each has ``fits(request)``, a plan or why not ("" of another kind of step,
which tells nothing), and ``run(plan)``."""
