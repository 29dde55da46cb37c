"""Another peer under a CUDA graph: its whole call, captured once."""

from __future__ import annotations

import torch

from harness.peer import BaseRunner, NotCompared


class GraphRunner(BaseRunner):
    """A runner's whole call, captured once. Its input and gradient tensors stay where they are."""

    def __init__(self, runner):
        self.runner, self.graph = runner, torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                runner.reset()
                runner.run()
        torch.cuda.current_stream().wait_stream(stream)
        runner.reset()
        runner.drop()  # autograd nodes that live on would tie the capture to another stream
        with torch.cuda.graph(self.graph, stream=stream):
            runner.run()
        self.found = runner.results()

    def run(self) -> None:
        self.graph.replay()

    def results(self) -> dict[str, torch.Tensor]:
        return self.found

    def close(self) -> None:
        self.graph.reset()
        self.runner.close()


class InGraph:
    """Another peer, under a CUDA graph."""

    def __init__(self, name: str, peer):
        self.name, self.peer = name, peer

    def prepare(self, problem) -> GraphRunner:
        if problem.case.form == "ragged":  # another batch has other lengths, and packing is the host's
            raise NotCompared
        return GraphRunner(self.peer.prepare(problem))
