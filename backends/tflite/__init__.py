"""TensorFlow Lite (LiteRT): .tflite files written directly, without TensorFlow."""
