"""The graph: a mutable ONNX model on onnx-graphsurgeon, and everything that reads or edits it."""
