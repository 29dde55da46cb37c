"""The contestants, an adapter each (`harness.peer.Peer`): ours, torch.nn, torch.compile, ONNX Runtime,
OpenVINO, oneDNN and the machine's own limits. A new one is a file here and a line in the suites that ask for
it.
"""
